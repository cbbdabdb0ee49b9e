"""Makes the answer to a request of HTTP that is refused before the SDK sees it.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import A2AError
from starlette.responses import JSONResponse
from starlette.types import Scope


def error_response(scope: Scope, error: A2AError, rpc_path: str) -> JSONResponse:
    """Return an error in the form of the interface to which a request goes.

    Args:
        scope: The request.
        error: Why it is refused.
        rpc_path: Path of the JSON-RPC interface, whose errors have another form.
    """
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    if path == rpc_path:
        return JSONResponse(build_error_response(None, error))
    payload = build_rest_error_payload(error)
    return JSONResponse(payload, payload["error"]["code"])
