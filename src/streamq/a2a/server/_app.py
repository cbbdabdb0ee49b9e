"""Builds the HTTP application of an agent.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING

from a2a.server.routes import (
    ServerCallContextBuilder,
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamq._settings import Settings
from streamq.driver import ChunkQueue

from ._agent import Agent
from ._checks import RequestChecks
from ._handler import TaskHandler
from ._resources import Resources

if TYPE_CHECKING:
    from temporalio.client import Client

_CARD_SECONDS = 300


def create_app(
    agent: Agent,
    *,
    client: Client | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    context_builder: ServerCallContextBuilder | None = None,
) -> Starlette:
    """Return the application of an agent: its card, JSON-RPC at ``/``, and HTTP+JSON.

    It may be mounted in another application. Then its lifespan does not run: call
    ``app.state.handler.aclose()`` at the end.

    Args:
        agent: The agent.
        client: A client of the agent's namespace; by default one is connected as configured, when
            the first request needs it.
        queue: An open queue, which stays open; by default one is opened as configured.
        settings: Settings to use; by default those that are configured.
        context_builder: Finds the caller of a request; by default the one that an authentication
            middleware of Starlette has found, if any. Nothing else protects tasks: without it, put
            the application behind something that authenticates.
    """
    handler = TaskHandler(agent, Resources(agent, client=client, queue=queue, settings=settings))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await handler.aclose()

    app = Starlette(
        routes=create_routes(handler, context_builder=context_builder), lifespan=lifespan
    )
    app.state.handler = handler
    return app


def create_routes(
    handler: TaskHandler, *, context_builder: ServerCallContextBuilder | None = None
) -> list[BaseRoute]:
    """Return the routes of an agent, for an application of one's own.

    Args:
        handler: Answers the requests; close it with the application.
        context_builder: As for :func:`create_app`.
    """
    card = handler.agent.served_card()
    inner = Router(
        [
            *create_agent_card_routes(card, cache_control=f"public, max-age={_CARD_SECONDS}"),
            *create_jsonrpc_routes(handler, "/", context_builder),
            *create_rest_routes(handler, context_builder),
        ]
    )
    middleware = [Middleware(RequestChecks), Middleware(_CardAge)]
    return [Mount("/", app=inner, middleware=middleware)]


class _CardAge:
    """Says since when the card is as it is: since this process began.

    Args:
        app: The routes behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._since = formatdate(usegmt=True).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not scope["path"].endswith(AGENT_CARD_WELL_KNOWN_PATH):
            await self._app(scope, receive, send)
            return

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"last-modified", self._since)]
            await send(message)

        await self._app(scope, receive, send_dated)
