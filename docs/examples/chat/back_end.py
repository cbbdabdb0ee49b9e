"""Serves the back end of the chat: who is logged in, what was asked, and who may read which stream.

Logins and questions are kept in memory here; yours are with an identity provider and in a database.
"""

import secrets
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import Request
from temporalio.client import Client

from streamq import Settings
from streamq.access import Grant, permit
from streamq.driver import StreamId
from streamq.gateway import create_app
from streamq.temporal import find_stream_name
from turns import Turn


@dataclass(frozen=True)
class User:
    """Somebody who works for one of the companies that use the chat."""

    name: str
    company: str

    @property
    def folder(self) -> str:
        """Where the workflows of this user are, and so the streams: nobody else's begin so."""
        return f"{self.company}/{self.name}"


USERS = {each.name: each for each in (User("ada", "acme"), User("linus", "globex"))}


@dataclass(frozen=True)
class Login:
    """The user that a token names, and when the token ends."""

    user: User
    expires_at: float


class Logins:
    """Gives tokens that last for a short time, to those who have logged in."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._users: dict[str, User] = {}
        self._logins: dict[str, Login] = {}

    def begin(self, name: str) -> str:
        """Return a key that gets tokens; a real one asks for a password."""
        if name not in USERS:
            raise HTTPException(401, f"nobody is called {name[:40]!r}")
        key = secrets.token_urlsafe()
        self._users[key] = USERS[name]
        return key

    def token(self, key: str) -> str:
        """Return a new token."""
        if key not in self._users:
            raise HTTPException(401, "log in again")
        now = time.time()
        self._logins = {k: each for k, each in self._logins.items() if each.expires_at > now}
        token = secrets.token_urlsafe()
        self._logins[token] = Login(self._users[key], now + self._seconds)
        return token

    def of(self, request: Request) -> Login:
        """Return whose request this is: FastAPI's Depends calls it, and so does the gateway."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        login = self._logins.get(token)
        if scheme.lower() != "bearer" or login is None or login.expires_at <= time.time():
            raise HTTPException(401, "there is no token that is valid now")
        return login


def create_chat(
    client: Client, settings: Settings, page_origin: str, token_seconds: float = 300.0
) -> FastAPI:
    """Return the back end for a page of another origin."""
    app = FastAPI(title="Chat")
    logins = Logins(token_seconds)
    asked: dict[User, list[dict[str, str]]] = defaultdict(list)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[page_origin],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )

    @app.post("/login")
    async def login(name: Annotated[str, Body(embed=True)]) -> dict[str, str]:
        key = logins.begin(name)
        return {"key": key, "name": name, "company": USERS[name].company}

    @app.post("/token")
    async def token(key: Annotated[str, Body(embed=True)]) -> str:
        return logins.token(key)

    @app.get("/messages")
    async def messages(own: Annotated[Login, Depends(logins.of)]) -> list[dict[str, str]]:
        return asked[own.user]

    @app.post("/messages")
    async def ask(
        own: Annotated[Login, Depends(logins.of)], question: Annotated[str, Body(embed=True)]
    ) -> dict[str, str]:
        handle = await client.start_workflow(
            Turn.run,
            question,
            id=f"{own.user.folder}/{uuid.uuid4()}",
            task_queue=f"chat-{own.user.company}",  # where the workers of this company listen
        )
        message = {"question": question, "stream": await find_stream_name(handle)}
        asked[own.user].append(message)
        return message

    # Reading, from here: the page may read and stop what is in the folder of its user.
    def authorize(request: Request, _stream: StreamId | None) -> Grant:
        own = logins.of(request)  # or 401, at which the page's client gets a new token
        return Grant(
            [permit("read", "list", "cancel", prefix=own.user.folder)],
            subject=own.user.folder,
            expires_at=own.expires_at,
            tenant=own.user.company,
        )

    app.mount("/streams", create_app(settings=settings, authorize=authorize, origins=[page_origin]))
    # Reading, to here.
    return app
