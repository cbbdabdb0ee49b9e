"""Serves an application that answers for streams from routes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamq import load_settings, open_writer
from streamq.gateway import StreamResponses
from streamq.gateway import serve as serve_app

SETTINGS = load_settings(backend="memory", retry_seconds=0.05)


def user(request: Request) -> str:
    """Return who asks, as a dependency would."""
    name = request.headers.get("x-user")
    if name is None:
        raise HTTPException(401, "log in first")
    return name


User = Annotated[str, Depends(user)]


def application(streams: StreamResponses, **options: Any) -> FastAPI:
    """Return an application with a route for everything, for the chats of whoever asks."""
    app = FastAPI(**options)

    @app.get("/chats/{name}/events")
    async def events(name: str, user: User, request: Request) -> Response:
        return await streams.events(request, f"{user}/{name}")

    @app.get("/chats/{name}/story")
    async def story(name: str, user: User, request: Request) -> Response:
        return await streams.story(request, f"{user}/{name}")

    @app.get("/chats/{name}")
    async def status(name: str, user: User, request: Request) -> Response:
        return await streams.status(request, f"{user}/{name}")

    @app.post("/chats/{name}/stop")
    async def stop(name: str, user: User, request: Request) -> Response:
        return await streams.cancel(request, f"{user}/{name}")

    @app.delete("/chats/{name}")
    async def delete(name: str, user: User, request: Request) -> Response:
        return await streams.delete(request, f"{user}/{name}")

    @app.get("/chats")
    async def listing(user: User, request: Request) -> Response:
        return await streams.list(request, prefix=user)

    @app.api_route("/several", methods=["GET", "POST"])
    async def several(user: User, request: Request) -> Response:
        return await streams.events(request, [f"{user}/a", f"{user}/b"])

    return app


async def write(queue: Any, *names: str, tenant: str = "default", chunks: int = 1) -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            for i in range(chunks):
                await writer.send_chunk(f"{i} of {name}")


def seen(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


@asynccontextmanager
async def starting() -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that serves an application to a user, until the test ends."""
    async with AsyncExitStack() as stack:

        async def begin(app: Any, user: str | None = "ada") -> httpx.AsyncClient:
            server = await stack.enter_async_context(serve_app(app))
            headers = {} if user is None else {"X-User": user}
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10)
            )

        yield begin
