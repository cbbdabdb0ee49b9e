"""Adds to answers of HTTP what concerns cards: how long they are good, and which extensions apply.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import hashlib
from email.utils import formatdate

from a2a.extensions.common import HTTP_EXTENSION_HEADER
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._agent import Agent
from ._extensions import activated, requested_by

CARD_SECONDS = 300
"""How long a client may use a card without asking again."""

_EXTENDED_PATH = "/extendedAgentCard"


class CardAge:
    """Says since when the public card is as it is: since this process began.

    Args:
        app: The routes behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._since = formatdate(usegmt=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not scope["path"].endswith(AGENT_CARD_WELL_KNOWN_PATH):
            await self._app(scope, receive, send)
            return

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])["Last-Modified"] = self._since
            await send(message)

        await self._app(scope, receive, send_dated)


class ExtendedCardCaching:
    """Lets a client keep the extended card for a while, and ask whether it has changed.

    Args:
        app: The routes behind it, which check who asks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or not scope["path"].endswith(_EXTENDED_PATH)
        ):
            await self._app(scope, receive, send)
            return
        known = Headers(scope=scope).get("if-none-match", "")
        start: Message = {}
        body = bytearray()

        async def send_tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            if start["status"] == 200:
                _tag(start, body, known)
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, send_tagged)


def _tag(start: Message, body: bytearray, known: str) -> None:
    """Mark an answer with what it is and how long it is good; empty it if the client has it."""
    tag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = MutableHeaders(raw=start["headers"])
    headers["ETag"] = tag
    headers["Cache-Control"] = f"private, max-age={CARD_SECONDS}"
    headers["Vary"] = "Authorization"
    if tag in [each.strip().removeprefix("W/") for each in known.split(",")]:
        start["status"] = 304
        del headers["Content-Length"], headers["Content-Type"]
        body.clear()


class ExtensionEcho:
    """Says in each answer which extensions apply to it.

    Args:
        app: The routes behind it.
        agent: Declares them.
    """

    def __init__(self, app: ASGIApp, agent: Agent) -> None:
        self._app, self._agent = app, agent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        found: list[str] = []
        if scope["type"] == "http":
            found = activated(self._agent, requested_by(Headers(scope=scope)))

        async def send_echo(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                headers = MutableHeaders(raw=message["headers"])
                headers.append(HTTP_EXTENSION_HEADER, ",".join(found))
            await send(message)

        await self._app(scope, receive, send_echo if found else send)
