"""Builds the HTTP application of an agent.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from a2a.server.routes import (
    ServerCallContextBuilder,
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Receive, Scope, Send

from streamq._comma_lists import listed
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.gateway._authority import METADATA_PATH
from streamq.gateway._authorize import Authorize
from streamq.gateway._sites import MOUNTED, SiteGuard, SiteRules

from ._access_http import AccessGate, about_tokens
from ._access_request import WithRequest
from ._agent import Agent
from ._body_limit import BodyLimit, log_no_bodies
from ._card_http import CARD_SECONDS, CardAge, ExtendedCardCaching, ExtensionEcho
from ._card_signing import JWKS_PATH
from ._checks import RequestChecks
from ._event_ids import EventIds
from ._handler import TaskHandler
from ._push_keys import public_push_keys
from ._resources import Resources

if TYPE_CHECKING:
    from temporalio.client import Client


def create_app(
    agent: Agent,
    *,
    client: Client | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    context_builder: ServerCallContextBuilder | None = None,
    authorize: Authorize | None = None,
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
        context_builder: Finds the caller of a request where no tokens are accepted; by default the
            one that an authentication middleware of Starlette has found, if any.
        authorize: A function of yours that says what a request may do, as for the gateway's
            :func:`streamq.gateway.create_app`. It is called with ``None``, to learn whom the
            request is from and what it may do in general, and then with the stream of the task. A
            call by gRPC comes as a POST with its metadata as headers.

    Where no issuer of tokens, no such function and no context builder is given, whoever reaches the
    application sees every task of which he knows the id, and lists them all: the log has a warning,
    unless ``STREAMQ_GATEWAY_ANONYMOUS`` says what is permitted.

    Where anything is permitted without such a proof, pages of other sites are refused, and a host
    that is neither that of the agent's ``url``, nor an IP address, nor a name without a dot, nor
    one of ``STREAMQ_GATEWAY_HOSTS``, gets 421, as the gateway does it.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    resources = Resources(agent, client=client, queue=queue, settings=settings)
    handler = TaskHandler(agent, resources, authorize=authorize)
    if context_builder is None:
        handler.access.warn_if_open()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await handler.aclose()

    app = _AgentApp(
        routes=create_routes(handler, context_builder=context_builder),
        lifespan=lifespan,
        middleware=[] if context_builder is not None else _site_guard(handler),
    )
    app.state.handler = handler
    return app


class _AgentApp(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[MOUNTED] = "app" in scope  # Starlette and FastAPI put themselves there
        await super().__call__(scope, receive, send)


def _site_guard(handler: TaskHandler) -> list[Middleware]:
    """Return what refuses pages of other sites, where everybody may do something."""
    authority, settings = handler.access.authority, handler.settings
    if authority.authorizer is not None or not authority.permitted_without_token:
        return []
    rules = SiteRules.of(
        listed(settings.gateway_hosts),
        listed(settings.gateway_origins),
        urlsplit(handler.agent.url).hostname or "",
    )
    options = {"host_option": "Agent(url=...)", "origin_option": ""}
    needs_tokens = authority.needs_tokens
    return [Middleware(SiteGuard, rules=rules, needs_tokens=needs_tokens, **options)]


def create_routes(
    handler: TaskHandler, *, context_builder: ServerCallContextBuilder | None = None
) -> list[BaseRoute]:
    """Return the routes of an agent, for an application of one's own.

    Args:
        handler: Answers the requests; close it with the application.
        context_builder: As for :func:`create_app`.
    """
    agent, access, builder = handler.agent, handler.access, WithRequest(context_builder)
    cards = handler.cards
    log_no_bodies()
    cache_control = f"public, max-age={CARD_SECONDS}"
    public = create_agent_card_routes(cards.public, cache_control=cache_control)
    keys = [*cards.keys, *public_push_keys(handler.settings)]
    public.append(Route(JWKS_PATH, _document({"keys": keys}, cache_control)))
    if access.authority.needs_tokens:
        public.append(Route(METADATA_PATH, about_tokens(access, agent.url)))
    operations = Router(
        [*create_jsonrpc_routes(handler, "/", builder), *create_rest_routes(handler, builder)]
    )
    metadata_url = agent.url.rstrip("/") + METADATA_PATH
    checks = [
        Middleware(AccessGate, access=access, metadata_url=metadata_url),
        Middleware(ExtendedCardCaching),
        Middleware(RequestChecks),
        Middleware(BodyLimit),
        Middleware(EventIds),
        Middleware(ExtensionEcho, agent=agent),
    ]
    inner = Router([*public, Mount("/", app=operations, middleware=checks)])
    return [Mount("/", app=inner, middleware=[Middleware(CardAge)])]


def _document(content: object, cache_control: str) -> Callable[[Request], Response]:
    def answer(_request: Request) -> Response:
        return JSONResponse(content, headers={"Cache-Control": cache_control})

    return answer
