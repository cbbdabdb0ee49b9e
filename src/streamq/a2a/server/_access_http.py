"""Refuses requests of HTTP without a good token, and says in the headers what would be one.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Callable

from a2a.utils.errors import A2AError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamq.gateway._error_responses import HEADERS

from ._access import Access
from ._access_errors import RETRY_SECONDS, AccessError
from ._access_request import noting_refusals
from ._http_errors import error_response


class AccessGate:
    """Verifies the token of a request before anything else of it is read.

    What is refused later, since only the body says what the request wants, gets the same status and
    the same headers.

    Args:
        app: The routes behind it.
        access: Verifies tokens.
        metadata_url: Where the issuers are listed whose tokens are accepted.
        rpc_path: Path of the JSON-RPC interface, whose errors have another form.
    """

    def __init__(
        self, app: ASGIApp, access: Access, metadata_url: str, rpc_path: str = "/"
    ) -> None:
        self._app, self._access = app, access
        self._metadata_url, self._rpc_path = metadata_url, rpc_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusals = noting_refusals(request)

        async def send_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and refusals:
                self._mark(message, refusals[0])
            await send(message)

        error = await self._access.admit(request)
        app = self._app if error is None else error_response(scope, error, self._rpc_path)
        await app(scope, receive, send_refused)

    def _mark(self, start: Message, error: A2AError) -> None:
        if not isinstance(error, AccessError):
            return
        start["status"] = error.http_status
        headers = MutableHeaders(raw=start.setdefault("headers", []))
        headers["Cache-Control"] = "no-store"
        if error.http_status >= 500:
            headers["Retry-After"] = str(RETRY_SECONDS)
        elif (challenge := error.challenge(self._metadata_url)) is not None:
            headers["WWW-Authenticate"] = challenge


def about_tokens(access: Access, url: str) -> Callable[[Request], Response]:
    """Return what answers which issuers' tokens are accepted, by RFC 9728.

    Args:
        access: Accepts them.
        url: Address of the agent.
    """

    def answer(_request: Request) -> Response:
        return JSONResponse(access.authority.metadata(url), headers=HEADERS)

    return answer
