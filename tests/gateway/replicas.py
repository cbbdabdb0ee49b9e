"""Serves one backend by several gateways, whose tokens are revoked."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import GatewayServer, create_app, serve

SECRET = new_secret()
LIMIT = 20.0


def settings_of(backend: str, **changed: Any) -> Settings:
    return load_settings(**{"backend": backend, "token_key": SECRET, **changed})


class Replica:
    """A real server of its own queue."""

    def __init__(self, server: GatewayServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def status(self, token: str, path: str = "/streams/a") -> int:
        return (await self.client.get(path, headers=bearer(token))).status_code

    async def becomes(self, expected: int, token: str) -> httpx.Response:
        async with asyncio.timeout(LIMIT):
            while True:
                answer = await self.client.get("/streams/a", headers=bearer(token))
                if answer.status_code == expected:
                    return answer
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def watching(self, token: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        """Open the stream ``a`` and yield a function that waits for the last event."""
        headers = bearer(token)
        async with aconnect_sse(self.client, "GET", "/streams/a/events", headers=headers) as source:
            events = source.aiter_sse()
            async for event in events:
                if event.event == "chunk":
                    break

            async def last() -> str:
                name = ""
                async with asyncio.timeout(LIMIT):
                    async for event in events:
                        name = event.event
                return name

            yield last


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    async with (
        serve(create_app(settings=settings)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        yield Replica(server, client)


def token_of(settings: Settings, **given: Any) -> str:
    return mint_token(every=True, settings=settings, **given)


async def opened(app: Any, stack: AsyncExitStack) -> httpx.AsyncClient:
    server = await stack.enter_async_context(serve(app))
    client = httpx.AsyncClient(base_url=server.url, timeout=LIMIT)
    return await stack.enter_async_context(client)


def claim(token: str, name: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))[name]


@asynccontextmanager
async def stream(settings: Settings) -> AsyncIterator[None]:
    """Keep a stream ``a`` that has begun and does not end."""
    async with open_writer("a", settings=settings) as writer:
        await writer.send_chunk("hello")
        await writer.flush()
        yield
