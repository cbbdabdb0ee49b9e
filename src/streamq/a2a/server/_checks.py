"""Checks requests of HTTP before the SDK sees them: content type, protocol version.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_VERSION = b"a2a-version"
_PLAIN, _KIND = "application/json", "application/a2a+json"
_TYPES = (_PLAIN, _KIND)
_MESSAGE = "Requests have the content type application/json or application/a2a+json, and not "
_LONGEST_SHOWN = 100
_RPC_CODE = -32005
_INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "CONTENT_TYPE_NOT_SUPPORTED",
    "domain": "a2a-protocol.org",
}


class RequestChecks:
    """Refuses a body that is not JSON, takes ``A2A-Version`` from the query, and names the answer.

    An ``EventSource`` cannot set headers, and the SDK reads the version from the header only.

    HTTP+JSON has the media type ``application/a2a+json`` since version 1.0.1 of the specification,
    where 1.0.0 has ``application/json``. Who sends, or accepts, only the older one gets it back.

    Args:
        app: The routes behind it.
        rpc_path: Path of the JSON-RPC interface, whose errors have another form.
    """

    def __init__(self, app: ASGIApp, rpc_path: str = "/") -> None:
        self._app, self._rpc_path = app, rpc_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if scope["method"] == "POST" and not _is_json(headers):
                await self._refuse(scope, _kind(headers), send)
                return
            if _VERSION not in headers and (version := query_value(scope, "a2a-version")):
                given = (_VERSION, version.encode("latin-1", "replace"))
                scope = {**scope, "headers": [*scope["headers"], given]}
            if _speaks_plain_json(headers):
                send = _as_plain_json(send)
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, kind_sent: str, send: Send) -> None:
        message = _MESSAGE + (repr(kind_sent[:_LONGEST_SHOWN]) if kind_sent else "none")
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path == self._rpc_path:
            status, kind = 200, _PLAIN.encode()
            error = {"code": _RPC_CODE, "message": message, "data": [_INFO]}
            body = {"jsonrpc": "2.0", "id": None, "error": error}
        else:
            status, kind = 415, _KIND.encode()
            body = {
                "error": {
                    "code": status,
                    "status": "INVALID_ARGUMENT",
                    "message": message,
                    "details": [_INFO],
                }
            }
        content = json.dumps(body).encode()
        found = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": found})
        await send({"type": "http.response.body", "body": content})


def _speaks_plain_json(headers: dict[bytes, bytes]) -> bool:
    accepted = headers.get(b"accept", b"").decode("latin-1").lower()
    if _KIND in accepted:
        return False
    return _kind(headers) == _PLAIN or _PLAIN in accepted


def _as_plain_json(send: Send) -> Send:
    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, _PLAIN.encode())
                if name == b"content-type" and value.startswith(_KIND.encode())
                else (name, value)
                for name, value in message["headers"]
            ]
            message = {**message, "headers": headers}
        await send(message)

    return send_named


def _kind(headers: dict[bytes, bytes]) -> str:
    return headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def _is_json(headers: dict[bytes, bytes]) -> bool:
    kind = _kind(headers)
    # Some operations have no body, and clients then send no type.
    is_empty = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
    return kind in _TYPES or (not kind and is_empty)


def query_value(scope: Scope, name: str) -> str | None:
    """Return what a request has in its query under a name, in upper or lower case."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    found = [each for key, each in query.items() if key.lower() == name]
    return found[0][0] if found else None
