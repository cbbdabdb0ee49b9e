"""Serves a gateway whose application permits requests by code of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.requests import Request

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret, permit
from streamq.driver import StreamId
from streamq.gateway import Authorize, GatewayOptions, create_app
from streamq.gateway import serve as serve_app

from .served import WatchedQueue

OPEN = load_settings(backend="memory", retry_seconds=0.05)
WITH_TOKENS = OPEN.model_copy(update={"token_key": SecretStr(new_secret())})
ABSENT = (404, "stream_not_found")
FORBIDDEN = (403, "insufficient_scope")

Start = Callable[..., Any]


@asynccontextmanager
async def starting(queue: WatchedQueue) -> AsyncIterator[Start]:
    """Yield a function that serves the queue with an application's code, until the test ends."""
    async with AsyncExitStack() as stack:

        async def begin(
            authorize: Authorize, settings: Settings = OPEN, **options: Any
        ) -> httpx.AsyncClient:
            app = create_app(
                queue, settings, authorize=authorize, options=GatewayOptions(**options)
            )
            server = await stack.enter_async_context(serve_app(app))
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=10)
            )

        yield begin


def user(request: Request) -> str:
    return request.headers.get("x-user", "nobody")


def own_chats(request: Request, _stream: StreamId | None) -> Any:
    """Return what most applications would: the user's own streams, whichever is asked for."""
    return [permit("read", "list", prefix=f"chats/{user(request)}")]


def bearer(**of: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(settings=WITH_TOKENS, **of)}"}


def seen(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


async def write(queue: WatchedQueue, *names: str, tenant: str = "default") -> None:
    settings = OPEN.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk(f"secret of {name}")


async def listed(client: httpx.AsyncClient, path: str = "/streams", **headers: str) -> list[str]:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return sorted(each["name"] for each in answer.json()["streams"])


STREAMS = ("chats/ada/1", "chats/ada/2", "chats/bob/1", "chats/ada2")
