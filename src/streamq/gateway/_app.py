"""Defines the routes of the gateway and reads their parameters.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._settings import Settings, load_settings
from streamq.access import Action, Rights
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, StreamInfo
from streamq.opening._open import describe

from ._access import MOUNTED, AccessGuard, SiteRules
from ._authority import METADATA_PATH, InsufficientScopeError, metadata_url, visible_stream
from ._clients import GatewayLimitError
from ._error_responses import HEADERS, BadRequestError, Problem
from ._gateway import Gateway
from ._log_limit import gateway_logger
from ._loops import LoopGateways
from ._opening import ClientGoneError, enter_unless_gone, follow_unless_gone
from ._options import GatewayOptions
from ._page import page_routes
from ._places import EventPlace, NamedPlace
from ._sse import EventStream

_logger = gateway_logger()

_MAX_WAIT_SECONDS = 300.0
_MAX_LISTED = 1_000
_LISTED = 100
_EVENTS = "/events"
_CLIENT_GONE = 499  # for logs: no client gets it


def create_app(
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    *,
    options: GatewayOptions | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] | None = None,
) -> Starlette:
    """Return the gateway as an ASGI application.

    Routes:

    * ``GET /streams/{name}/events``: the stream as Server-Sent Events. The start is given by
      the ``Last-Event-ID`` header, else ``?after=ID`` (or ``?last_event_id=``), else
      ``?from=beginning`` (default), ``?from=last`` (the latest value, and then what is live) or
      ``?from=tail``. ``?wait=SECONDS`` (up to 300) accepts a stream that does not exist yet.
    * ``GET /streams/{name}``: the status of a stream. Names are percent-encoded; a slash need not
      be, unless clients or proxies would resolve it (``a/../b``).
    * ``GET /streams?prefix=&limit=``: a list.
    * ``GET /``: a page that shows a stream as it arrives, ``/?stream=NAME``.
    * ``GET /.well-known/oauth-protected-resource``: whose tokens are accepted.
    * ``GET /healthz``: this process answers. ``GET /readyz``: the backend answers, too.

    If the application is mounted under a prefix, the parent does not run its lifespan: the queue is
    then opened on first use, and closed when the event loop ends, or by ``await
    app.state.gateway.aclose()``. Alternatively pass an open queue, or run
    ``app.router.lifespan_context(app)`` in the parent's lifespan.

    Args:
        queue: An open queue to use; it stays open. By default the configured one is opened.
        settings: Tenant and limits; by default the configured ones.
        options: Bounds and deadlines; by default those of the settings.
        hosts: Names by which browsers reach the gateway, besides this machine's name, IP addresses
            and names without a dot; by default those of ``STREAMQ_GATEWAY_HOSTS``. One that names
            another host gets 421, as its sender may have been led here by DNS rebinding. Where
            another application mounts this one, hosts are checked only if there are any.
        origins: Origins of other sites whose pages may read streams (CORS); by default those of
            ``STREAMQ_GATEWAY_ORIGINS``. Other sites' pages get 403; where another application
            mounts this one and no origins are given, CORS is left to it.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    chosen = settings or load_settings()
    gateway = Gateway(queue, chosen, options or GatewayOptions.from_settings(chosen))
    gateways = LoopGateways(gateway)
    access = SiteRules.of(
        _listed(chosen.gateway_hosts) if hosts is None else hosts,
        _listed(chosen.gateway_origins) if origins is None else origins,
        chosen.gateway_host,
    )
    middleware = [Middleware(AccessGuard, access=access)]
    if access.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(access.origins),
                allow_methods=["GET"],
                allow_headers=["Authorization", "Last-Event-ID"],
                expose_headers=["WWW-Authenticate", "Retry-After"],
            )
        )
    middleware.append(Middleware(_InTurn, gateways=gateways))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with gateways.current().running():
            yield

    app = _GatewayApp(
        routes=[
            *page_routes(),
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/readyz", _readyz, methods=["GET"]),
            Route(METADATA_PATH, _metadata, methods=["GET"]),
            Route("/streams", _list, methods=["GET"]),
            Route("/streams/{name:streamq_name}", _one, methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={
            StreamqError: _on_streamq_error,
            HTTPException: _on_http_exception,
            Exception: _on_exception,
        },
    )
    app.state.gateway = gateway
    app.state.gateways = gateways
    return app


class _GatewayApp(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[MOUNTED] = "app" in scope  # Starlette and FastAPI put themselves there
        await super().__call__(scope, receive, send)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


class _InTurn:
    """Lets requests begin in turn, so that a flood of them does not delay live events."""

    def __init__(self, app: ASGIApp, gateways: LoopGateways) -> None:
        self._app = app
        self._gateways = gateways

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            gateway = self._gateways.current()
            try:
                receive = await enter_unless_gone(gateway, scope, receive)
            except ClientGoneError:
                await Response(status_code=_CLIENT_GONE)(scope, receive, send)
                return
            except GatewayLimitError as exc:
                response = Problem.of(exc).response(gateway.options.retry_seconds)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _NameConvertor(Convertor[str]):
    """Accepts every name; starlette's ``path`` accepts none with a newline."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("streamq_name", _NameConvertor())


async def _one(request: Request) -> Response:
    """Answer for one stream: its events if the path ends with ``/events``, else its status.

    An encoded slash belongs to the name: ``/streams/a%2Fevents`` is the status of ``a/events``.
    """
    # Optional in ASGI; some servers and test clients leave it empty, or add the query.
    raw: bytes = (request.scope.get("raw_path") or b"").split(b"?")[0]
    name: str = request.path_params["name"]
    try:
        unquote(raw.decode("ascii") if raw else request.url.path, errors="strict")
    except UnicodeDecodeError:
        raise BadRequestError("the path is not UTF-8, percent-encoded") from None
    wanted = name.endswith(_EVENTS) and (not raw or raw.endswith(_EVENTS.encode()))
    rights = await _rights(request)
    try:
        stream = StreamId(rights.tenant, name.removesuffix(_EVENTS) if wanted else name)
    except ValueError as exc:
        raise BadRequestError(str(exc)) from None
    try:
        if wanted:
            return await _events(request, stream, rights)
        return await _status(request, visible_stream(rights, Action.DESCRIBE, stream), rights)
    except StreamNotFoundError as exc:  # a driver's message may contain hosts or paths
        raise StreamNotFoundError(f"there is no stream {stream}", stream=str(stream)) from exc


async def _events(request: Request, asked: StreamId, rights: Rights) -> Response:
    gateway = _gateway(request)
    stream = visible_stream(rights, Action.READ, asked)
    after = _start(request)
    wait = request.query_params.get("wait")
    wait_seconds = 0.0 if wait is None else _number("wait", wait, _MAX_WAIT_SECONDS)
    client = gateway.client_of(request.scope, rights)
    follow = gateway.follow(stream, after, may_be_missing=wait is not None, client=client)
    try:
        follower = await follow_unless_gone(gateway, request.receive, follow)
    except ClientGoneError:
        return Response(status_code=_CLIENT_GONE)
    if follower is None:
        return Response(status_code=204, headers=HEADERS)
    opening = None if isinstance(after, EventPlace) else follower.place
    return EventStream(
        gateway,
        follower,
        asked=asked,
        opening=opening,
        wait_seconds=wait_seconds,
        expires_at=rights.expires_at,
    )


async def _status(request: Request, stream: StreamId, rights: Rights) -> Response:
    gateway = _gateway(request)
    async with gateway.questions.ask(gateway.client_of(request.scope, rights)) as queue:
        status = await describe(stream, queue=queue, settings=gateway.brief_settings)
    return JSONResponse(
        {
            "tenant": stream.tenant,
            "name": stream.name,
            "attempt": status.attempt,
            "offset": status.offset,
            "state": status.seal.state.name if status.seal else "OPEN",
            "seal": status.seal.to_dict() if status.seal else None,
            "records": status.records,
            "size_bytes": status.size_bytes,
            "expires_in_seconds": _seconds(status.expires_in),
        },
        headers=HEADERS,
    )


def _seconds(left: timedelta | None) -> float | None:
    return None if left is None else left.total_seconds()


async def _list(request: Request) -> Response:
    gateway = _gateway(request)
    prefix = request.query_params.get("prefix", "")
    limit = int(_number("limit", request.query_params.get("limit", str(_LISTED)), _MAX_LISTED))
    rights = await _rights(request)
    if not rights.allow_some(Action.LIST):
        raise InsufficientScopeError("the token does not permit to list streams")
    client = gateway.client_of(request.scope, rights)
    async with gateway.questions.ask(client, is_list=True) as queue:
        found = await _found(queue, rights, prefix)
    # Every append restarts the time to live, so the stream that expires last is the most recent.
    found.sort(key=lambda info: (info.expires_in is None, info.expires_in), reverse=True)
    listed = [
        {
            "name": info.stream.name,
            "records": info.records,
            "size_bytes": info.size_bytes,
            "expires_in_seconds": _seconds(info.expires_in),
        }
        for info in found[:limit]
    ]
    return JSONResponse(
        {"streams": listed, "is_complete": len(found) < _MAX_LISTED and len(found) <= limit},
        headers=HEADERS,
    )


async def _found(queue: ChunkQueue, rights: Rights, prefix: str) -> list[StreamInfo]:
    found: list[StreamInfo] = []
    for searched in rights.prefixes(Action.LIST, prefix):
        async with contextlib.aclosing(calling.streams(queue, rights.tenant, searched)) as infos:
            async for info in infos:
                if rights.allow(Action.LIST, info.stream):
                    found.append(info)
                if len(found) == _MAX_LISTED:
                    return found
    return found


async def _healthz(request: Request) -> Response:
    gateway = _gateway(request)
    answer: dict[str, object] = {"status": "ok"}
    if not gateway.authority.needs_tokens:
        statistics = gateway.statistics()
        answer |= {"streams": statistics.streams, "connections": statistics.connections}
    return JSONResponse(answer, headers=HEADERS)


async def _readyz(request: Request) -> Response:
    gateway = _gateway(request)
    backend = await gateway.check_backend()
    answer = {"status": "ok"}
    if not gateway.authority.needs_tokens:
        answer["backend"] = backend
    return JSONResponse(answer, headers=HEADERS)


async def _metadata(request: Request) -> Response:
    """Say which issuers' tokens are accepted, by RFC 9728."""
    gateway = _gateway(request)
    if not gateway.authority.needs_tokens:
        raise HTTPException(404)
    return JSONResponse(gateway.authority.metadata(request), headers=HEADERS)


async def _rights(request: Request) -> Rights:
    return await _gateway(request).authority.rights(request.headers)


def _gateway(request: Request) -> Gateway:
    gateways: LoopGateways = request.app.state.gateways
    return gateways.current()


def _start(request: Request) -> EventPlace | NamedPlace:
    """Return the place after which to continue.

    The header wins: a browser that reconnects sends it with the original address.
    """
    query = request.query_params
    header = request.headers.get("last-event-id", "")
    if header:
        return EventPlace.parse("Last-Event-ID", header)
    given = [name for name in ("after", "last_event_id", "from") if name in query]
    if len(given) > 1:
        raise BadRequestError(f"{' and '.join(given)} exclude each other; give one of them")
    if not given:
        return EventPlace(0)
    if given[0] != "from":
        return EventPlace.parse(given[0], query[given[0]])
    match query["from"]:
        case "beginning":
            return EventPlace(0)
        case "last" | "tail" as name:
            return name
        case other:
            raise BadRequestError(
                f"from is {other[:40]!r}; it can be 'beginning', 'last' or 'tail'"
            )


def _number(name: str, text: str, most: float) -> float:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= most):
        raise BadRequestError(f"{name} is {text[:40]!r}; it can be 0 to {most:g}")
    return float(text)


async def _on_streamq_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StreamqError)
    problem = Problem.of(exc)
    if problem.status >= 500:
        _logger.warning("%s: %s", exc.code, exc)
    metadata = metadata_url(request) if problem.is_challenge else None
    return problem.response(_gateway(request).options.retry_seconds, metadata)


async def _on_http_exception(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http")
    return JSONResponse(
        {"error": code, "message": exc.detail},
        exc.status_code,
        headers={**HEADERS, **(exc.headers or {})},
    )


async def _on_exception(_request: Request, _exc: Exception) -> Response:
    return JSONResponse(
        {"error": "internal", "message": "the gateway failed; see its log"}, 500, headers=HEADERS
    )
