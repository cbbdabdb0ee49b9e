"""Checks requests of HTTP before the SDK sees them: content type, protocol version.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

_VERSION = b"a2a-version"
_TYPES = ("application/json", "application/a2a+json")
_MESSAGE = "Requests have the content type application/json or application/a2a+json"
_RPC_CODE = -32005
_INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "CONTENT_TYPE_NOT_SUPPORTED",
    "domain": "a2a-protocol.org",
}


class RequestChecks:
    """Refuses a body that is not JSON, and takes ``A2A-Version`` from the query.

    An ``EventSource`` cannot set headers, and the SDK reads the version from the header only.

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
                await self._refuse(scope, send)
                return
            if _VERSION not in headers and (version := query_value(scope, "a2a-version")):
                given = (_VERSION, version.encode("latin-1", "replace"))
                scope = {**scope, "headers": [*scope["headers"], given]}
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path == self._rpc_path:
            status, kind = 200, b"application/json"
            error = {"code": _RPC_CODE, "message": _MESSAGE, "data": [_INFO]}
            body = {"jsonrpc": "2.0", "id": None, "error": error}
        else:
            status, kind = 415, b"application/a2a+json"
            body = {
                "error": {
                    "code": status,
                    "status": "INVALID_ARGUMENT",
                    "message": _MESSAGE,
                    "details": [_INFO],
                }
            }
        content = json.dumps(body).encode()
        found = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": found})
        await send({"type": "http.response.body", "body": content})


def _is_json(headers: dict[bytes, bytes]) -> bool:
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    # Some operations have no body, and clients then send no type.
    is_empty = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
    return kind in _TYPES or (not kind and is_empty)


def query_value(scope: Scope, name: str) -> str | None:
    """Return what a request has in its query under a name, in upper or lower case."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    found = [each for key, each in query.items() if key.lower() == name]
    return found[0][0] if found else None
