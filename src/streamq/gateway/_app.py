"""Makes the application: routes, middleware, lifespan.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streamq._comma_lists import listed
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue

from ._authority import Authority
from ._authorize import Authorize, Authorizer
from ._clients import GatewayLimitError
from ._credentials import HTTPS, hide_tickets
from ._error_handlers import ERROR_HANDLERS
from ._error_responses import Problem
from ._gateway import Gateway
from ._log_limit import gateway_logger
from ._loops import LoopGateways
from ._opening import CLIENT_GONE, ClientGoneError, enter_unless_gone
from ._options import GatewayOptions
from ._routes import routes
from ._sites import MOUNTED, SiteGuard, SiteRules
from ._story_text import STORY_HEADERS
from ._tenant_converters import settings_of_tenant

_logger = gateway_logger()


def create_app(
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    *,
    authorize: Authorize | None = None,
    options: GatewayOptions | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] | None = None,
) -> Starlette:
    """Return the gateway as an ASGI application.

    Routes:

    * ``GET /events/{name}``: the stream as Server-Sent Events. The start is given by
      the ``Last-Event-ID`` header, else ``?after=ID`` (or ``?last_event_id=``), else
      ``?from=beginning`` (default), ``?from=last`` (the latest value, and then what is live) or
      ``?from=tail``. ``?wait=SECONDS`` (up to 300) accepts a stream that does not exist yet.
    * ``GET /events?stream=&prefix=``, ``POST /events``: many streams on one connection.
    * ``GET /story/{name}``: what is stored until now, as JSON, in pages (``?after=ID``).
    * ``GET /streams/{name}``: the status of a stream; ``DELETE`` deletes it. Names are
      percent-encoded; a slash need not be, unless clients or proxies would resolve it
      (``a/../b``).
    * ``GET /streams?prefix=&limit=``: a list.
    * ``/t/{tenant}/...``: the same for one tenant.
    * ``GET /``: a page that shows a stream as it arrives, ``/?stream=NAME``.
    * ``POST /ticket/{name}``: a ticket for the events, ``?ticket=``, where a setting permits it.
    * ``POST /session``, ``DELETE /session``: the token of the header as a cookie, to read with.
    * ``GET /.well-known/oauth-protected-resource``: whose tokens are accepted.
    * ``POST /cancel/{name}``: stops the workflow or activity behind a stream.
    * ``POST /revocations``: revokes tokens.
    * ``GET /healthz``: this process answers. ``GET /readyz``: the backend answers, too.

    If the application is mounted under a prefix, the parent does not run its lifespan: the queue is
    then opened on first use, and closed when the event loop ends, or by ``await
    app.state.gateway.aclose()``. Alternatively pass an open queue, or run
    ``app.router.lifespan_context(app)`` in the parent's lifespan.

    Args:
        queue: An open queue to use; it stays open. By default the configured one is opened.
        settings: Tenant and limits; by default the configured ones.
        authorize: A function of yours that says what a request may do, beside tokens or instead of
            them; see below.
        options: Bounds and deadlines; by default those of the settings.
        hosts: Names by which browsers reach the gateway, besides this machine's name, IP addresses
            and names without a dot; by default those of ``STREAMQ_GATEWAY_HOSTS``. One that names
            another host gets 421, as its sender may have been led here by DNS rebinding. Where
            another application mounts this one, hosts are checked only if there are any.
        origins: Origins of other sites whose pages may read streams (CORS); by default those of
            ``STREAMQ_GATEWAY_ORIGINS``. Other sites' pages get 403; where another application
            mounts this one and no origins are given, reading by CORS is left to it. POST and DELETE
            of a page of another origin need a token in the header, or that origin here.

    ``authorize(request, stream)`` is called with Starlette's request and the stream that it asks
    for, or with ``None`` where it asks for no certain one (lists, prefixes). It may be
    asynchronous; otherwise it runs in a thread. It is asked anew for each request, and has
    ``options.authorize_seconds``. It returns

    * permissions (:func:`streamq.access.permit`): what the request may do. It may ignore ``stream``
      then. Lists are searched only below the names that are permitted;
    * ``True``: what the gateway permits without it. For ``None`` that means that each stream found
      is a question of its own;
    * ``False``: nothing. The stream is answered as one that is not there;
    * :class:`streamq.access.Grant`: one of these, and whom the request is from, until when it is
      permitted, and for which tenant.

    Where tokens are accepted, a request needs both: the token and the function have to permit it.
    Without an issuer of tokens the function decides alone; whatever ``STREAMQ_GATEWAY_ANONYMOUS``
    does not list, as ``cancel`` and ``delete``, it has to permit by name. It may raise
    ``HTTPException``, whose status and detail are the answer. Any other exception is logged and
    answered with 500, without its text.

    Where no issuer of tokens and no such function is configured, whoever reaches the application
    reads: the log has a warning, unless ``STREAMQ_GATEWAY_ANONYMOUS`` says what is permitted; with
    ``nothing`` it stays closed.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    app = build_app(
        queue, settings, authorize=authorize, options=options, hosts=hosts, origins=origins
    )
    gateway: Gateway = app.state.gateway
    if gateway.authority.is_open and not gateway.settings.gateway_anonymous.strip():
        _logger.warning(
            "no issuer of tokens is configured: whoever reaches this gateway reads every stream of "
            "tenant %s. Set STREAMQ_TOKEN_KEY_FILE or STREAMQ_TOKEN_ISSUERS; if something in front "
            "authenticates, say so by STREAMQ_GATEWAY_ANONYMOUS=read,list; with nothing as its "
            "value the gateway stays closed",
            gateway.settings.tenant,
        )
    return app


def build_app(
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    *,
    authorize: Authorize | None = None,
    options: GatewayOptions | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] | None = None,
) -> Starlette:
    """Return the application of :func:`create_app` to a caller who says himself that it is open.

    Args:
        queue: As for :func:`create_app`.
        settings: As for :func:`create_app`.
        authorize: As for :func:`create_app`.
        options: As for :func:`create_app`.
        hosts: As for :func:`create_app`.
        origins: As for :func:`create_app`.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    chosen = settings or load_settings()
    settings_of_tenant(chosen, chosen.tenant)  # raises if the data converters are not readable
    bounds = options or GatewayOptions.from_settings(chosen)
    authorizer = None if authorize is None else Authorizer(authorize, bounds.authorize_seconds)
    gateway = Gateway(queue, chosen, bounds, Authority(chosen, authorizer))
    gateways = LoopGateways(gateway)
    site_rules = SiteRules.of(
        listed(chosen.gateway_hosts) if hosts is None else hosts,
        listed(chosen.gateway_origins) if origins is None else origins,
        chosen.gateway_host,
    )
    needs_tokens = gateway.authority.needs_tokens
    middleware = [Middleware(SiteGuard, rules=site_rules, needs_tokens=needs_tokens)]
    if site_rules.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(site_rules.origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Last-Event-ID"],
                # Any page at all could otherwise read with the cookie of whoever opens it.
                allow_credentials=site_rules.origins == site_rules.named_origins,
                expose_headers=["WWW-Authenticate", "Retry-After", *STORY_HEADERS],
            )
        )
    middleware.append(Middleware(_InTurn, gateways=gateways))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with gateways.current().running():
            yield

    app = _GatewayApp(
        routes=routes(),
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers=ERROR_HANDLERS,
    )
    app.state.site_rules = site_rules
    app.state.gateway = gateway
    app.state.gateways = gateways
    return app


class _GatewayApp(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[MOUNTED] = "app" in scope  # Starlette and FastAPI put themselves there
        if scope["type"] == "http":
            hide_tickets(scope)
        await super().__call__(scope, receive, send)


class _InTurn:
    """Lets requests begin in turn, so that a flood of them does not delay live events."""

    def __init__(self, app: ASGIApp, gateways: LoopGateways) -> None:
        self._app = app
        self._gateways = gateways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            gateway = self._gateways.current()
            scope[HTTPS] = gateway.clients.is_https(scope)
            try:
                receive = await enter_unless_gone(gateway, scope, receive)
            except ClientGoneError:
                await Response(status_code=CLIENT_GONE)(scope, receive, send)
                return
            except GatewayLimitError as exc:
                response = Problem.of(exc).response(gateway.options.retry_seconds)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
