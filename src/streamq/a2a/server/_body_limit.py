"""Bounds what a replica reads of one request, and keeps it out of the SDK's log.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import logging

from a2a.server.routes import jsonrpc_dispatcher
from a2a.utils.errors import A2AError, InvalidParamsError, InvalidRequestError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._http_errors import error_response

LARGEST_BODY = 4 * 2**20
"""As gRPC has it by default; the largest message is far below, in any notation of JSON."""

_OK, _TOO_LARGE = 200, 413


class BodyLimit:
    """Refuses a body of more than 4 MiB, or one that is not UTF-8.

    The SDK reads bodies of any size into memory. Here the rest is read and dropped: a client that
    still sends would not see the answer.

    Args:
        app: The routes behind it.
        rpc_path: Path of the JSON-RPC interface, whose errors have another form.
    """

    def __init__(self, app: ASGIApp, rpc_path: str = "/") -> None:
        self._app, self._rpc_path = app, rpc_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        first = await _read(receive)
        error: A2AError | None = None
        if first is None:
            error = InvalidParamsError(
                f"The body has more than {LARGEST_BODY} bytes; send a large file as a part with a "
                "url"
            )
        elif not _is_utf8(first.get("body", b"")):
            error = InvalidRequestError("The body is not UTF-8")
        if error is not None:
            refusal = error_response(scope, error, self._rpc_path)
            if first is None and refusal.status_code != _OK:
                refusal.status_code = _TOO_LARGE
            await refusal(scope, receive, send)
            return
        read: list[Message] = [first] if first is not None else []

        async def receive_rest() -> Message:
            return read.pop() if read else await receive()

        await self._app(scope, receive_rest, send)


async def _read(receive: Receive) -> Message | None:
    """Return a whole body as one message, or the end of the connection; ``None`` if too large."""
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            body.clear()
        else:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if size > LARGEST_BODY:
        return None
    return {"type": "http.request", "body": bytes(body), "more_body": False}


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


class _WithoutBodies(logging.Filter):
    """Drops the records with whole requests, which the SDK writes at level DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        return not str(record.msg).startswith("Request body")


_WITHOUT_BODIES = _WithoutBodies()


def log_no_bodies() -> None:
    """Keep bodies of requests, with the credentials in them, out of the SDK's log. Idempotent."""
    jsonrpc_dispatcher.logger.addFilter(_WITHOUT_BODIES)
