"""Leads each request to the handler that answers it.

A route for one stream calls its handler with the stream and the rights of the request.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq.access import Rights

from ._authority import METADATA_PATH
from ._error_responses import BadRequestError
from ._handlers._events import send_events
from ._handlers._listing import send_list
from ._handlers._service import send_healthz, send_metadata, send_readyz
from ._handlers._status import send_status
from ._loops import gateway_of
from ._page import page_routes

_EVENTS = "/events"

_Handler = Callable[[Request, StreamId, Rights], Awaitable[Response]]


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
        Route("/streams", send_list, methods=["GET"]),
        Route("/streams/{name:streamq_name}", _one, methods=["GET"]),
    ]


async def _one(request: Request) -> Response:
    """Answer for one stream: its events if the path ends with ``/events``, else its status.

    An encoded slash belongs to the name: ``/streams/a%2Fevents`` is the status of ``a/events``.
    """
    raw = _raw_path(request)
    name: str = request.path_params["name"]
    if name.endswith(_EVENTS) and (not raw or raw.endswith(_EVENTS.encode())):
        return await _answer(request, name.removesuffix(_EVENTS), send_events)
    return await _answer(request, name, send_status)


async def _answer(request: Request, name: str, handler: _Handler) -> Response:
    rights = await gateway_of(request).authority.rights(request.headers)
    try:
        stream = StreamId(rights.tenant, name)
    except ValueError as exc:
        raise BadRequestError(str(exc)) from None
    try:
        return await handler(request, stream, rights)
    except StreamNotFoundError as exc:  # a driver's message may contain hosts or paths
        raise StreamNotFoundError(f"there is no stream {stream}", stream=str(stream)) from exc


def _raw_path(request: Request) -> bytes:
    """Return the path as it was sent; empty where the server does not say.

    Raises:
        BadRequestError: It is not UTF-8.
    """
    # Optional in ASGI; some servers and test clients leave it empty, or add the query.
    raw: bytes = (request.scope.get("raw_path") or b"").split(b"?")[0]
    try:
        unquote(raw.decode("ascii") if raw else request.url.path, errors="strict")
    except UnicodeDecodeError:
        raise BadRequestError("the path is not UTF-8, percent-encoded") from None
    return raw
