"""Publishes the keys with which receivers verify push notifications.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamq._settings import Settings
from streamq.a2a._push_signing import configured_signer

_PATH = "/.well-known/jwks.json"
_SECONDS = 300


def push_key_routes(settings: Settings) -> list[Route]:
    """Return the route of the public keys: a JSON Web Key Set, empty without any.

    A secret is never published.

    Raises:
        ConfigurationError: The setting has no key to sign with.
    """

    signer = configured_signer(settings)
    key = None if signer is None else signer.public_key()

    async def answer(_: Request) -> Response:
        return JSONResponse(
            {"keys": [] if key is None else [key]},
            headers={"Cache-Control": f"public, max-age={_SECONDS}"},
        )

    return [Route(_PATH, answer, methods=["GET"])]
