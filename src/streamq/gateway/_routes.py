"""Leads each request to the handler that answers it.

A route for one stream calls its handler with the stream and the rights of the request.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq.access import Rights

from ._authority import METADATA_PATH, absent
from ._error_responses import BadRequestError
from ._handlers._cancellation import cancel_producer
from ._handlers._deletion import delete_stream
from ._handlers._events import send_events
from ._handlers._listing import send_list
from ._handlers._many_events import send_many_events
from ._handlers._records import send_backend, send_records
from ._handlers._revocations import send_revocation
from ._handlers._service import send_healthz, send_metadata, send_readyz
from ._handlers._session import send_session
from ._handlers._status import send_status
from ._handlers._story import send_story
from ._handlers._ticket import send_ticket
from ._page import page_routes
from ._parameters import check_options
from ._request_rights import rights_of_request

_EVENTS = "/events"
_PLACE_OPTIONS = ("after", "last_event_id", "from")
_EVENT_OPTIONS = (*_PLACE_OPTIONS, "wait", "attempts")
_STORY_OPTIONS = (*_PLACE_OPTIONS, "attempts", "as")
_RECORD_OPTIONS = ("after", "last", "follow", "wait", "records", "bytes")
_NAME = "{name:streamq_name}"

_Handler = Callable[[Request, StreamId, Rights], Awaitable[Response]]
_ListHandler = Callable[[Request], Awaitable[Response]]


class _NameConvertor(Convertor[str]):
    """Accepts every name; starlette's ``path`` accepts none with a newline."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("streamq_name", _NameConvertor())


def routes() -> list[Route]:
    """Return every route of the gateway."""
    return [
        *page_routes(),
        Route("/healthz", send_healthz, methods=["GET"]),
        Route("/readyz", send_readyz, methods=["GET"]),
        Route(METADATA_PATH, send_metadata, methods=["GET"]),
        Route("/revocations", send_revocation, methods=["POST"]),
        Route("/session", send_session, methods=["POST", "DELETE"]),
        *_stream_routes(""),
        *_stream_routes("/t/{tenant}"),
    ]


def _stream_routes(prefix: str) -> list[Route]:
    """Return the routes of streams; the verb comes first, since names contain everything."""
    return [
        Route(f"{prefix}/streams", _literal(send_list), methods=["GET"]),
        Route(f"{prefix}/events", _literal(send_many_events), methods=["GET", "POST"]),
        _route("GET", f"{prefix}/events", send_events, _EVENT_OPTIONS),
        _route("GET", f"{prefix}/story", send_story, _STORY_OPTIONS),
        Route(f"{prefix}/records", _literal(send_backend), methods=["GET"]),
        _route("GET", f"{prefix}/records", send_records, _RECORD_OPTIONS),
        _route("POST", f"{prefix}/ticket", send_ticket),
        _route("POST", f"{prefix}/cancel", cancel_producer, ("wait",)),
        Route(f"{prefix}/streams/{_NAME}", _one, methods=["GET", "DELETE"]),
    ]


def _route(method: str, verb: str, handler: _Handler, options: Sequence[str] = ()) -> Route:
    async def endpoint(request: Request) -> Response:
        _check_path(request)
        return await _answer(request, request.path_params["name"], handler, options)

    return Route(f"{verb}/{_NAME}", endpoint, methods=[method])


def _literal(handler: _ListHandler) -> _ListHandler:
    async def endpoint(request: Request) -> Response:
        _check_path(request)
        return await handler(request)

    return endpoint


async def _one(request: Request) -> Response:
    """Answer for one stream: with its status, or, if the path ends with ``/events``, its events.

    An encoded slash belongs to the name: ``/streams/a%2Fevents`` is the status of ``a/events``.
    """
    raw = _check_path(request)
    name: str = request.path_params["name"]
    names_events = name.endswith(_EVENTS) and (not raw or raw.endswith(_EVENTS.encode()))
    if request.method == "DELETE":
        if names_events:
            raise BadRequestError(
                "the path could mean a stream or its events; if the name of the stream ends with "
                "/events, write this slash as %2F"
            )
        return await _answer(request, name, delete_stream)
    if names_events:
        return await _answer(request, name.removesuffix(_EVENTS), send_events, _EVENT_OPTIONS)
    return await _answer(request, name, send_status)


async def _answer(
    request: Request, name: str, handler: _Handler, options: Sequence[str] = ()
) -> Response:
    asked = await rights_of_request(request, takes_ticket=handler is send_events)
    check_options(request, options)
    stream, rights = await asked.on(name)
    try:
        return await handler(request, stream, rights)
    except StreamNotFoundError as exc:
        raise absent(stream) from exc


def _check_path(request: Request) -> bytes:
    """Return the path as it was sent; empty where the server does not say.

    What stands before the name has to be written as it is: a proxy that lets only some tenants or
    verbs through has seen the same.

    Raises:
        BadRequestError: It is not UTF-8.
        HTTPException: A part before the name is encoded.
    """
    # Optional in ASGI; some servers and test clients leave it empty, or add the query.
    raw: bytes = (request.scope.get("raw_path") or b"").split(b"?")[0]
    try:
        text = raw.decode("ascii")
        unquote(text or request.url.path, errors="strict")
    except UnicodeDecodeError:
        raise BadRequestError("the path is not UTF-8, percent-encoded") from None
    if raw and not _is_literal(request, text):
        raise HTTPException(404)
    return raw


def _is_literal(request: Request, raw: str) -> bool:
    """Whether what stands before the name, after the path of a parent, is written as it is read."""
    mounted, name = request.scope.get("root_path", ""), request.path_params.get("name", "")
    own: str = request.scope["path"].removesuffix(name)
    if own.startswith(f"{mounted}/"):
        own = own.removeprefix(mounted)
    most = 3 * len(mounted.encode())  # if each byte of the parent's path is encoded
    return any(
        unquote(raw[:start]) in ("", mounted) and unquote(raw[start + len(own) :]) == name
        for start in range(most + 1)
        if raw.startswith(own, start)
    )
