"""Verifies, where push notifications arrive, who has sent them.

Needs ``a2a-sdk`` and joserfc.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from a2a.types.a2a_pb2 import StreamResponse
from google.protobuf.json_format import Parse, ParseError

from streamq._errors import ConfigurationError, SerializationError
from streamq.access import InvalidTokenError

from ._push_signing import SIGNATURE_HEADER, TOKEN_HEADER, verified_claims


def verify_notification(
    body: bytes,
    headers: Mapping[str, str],
    *,
    url: str,
    keys: str | bytes = "",
    token: str = "",
) -> StreamResponse:
    """Return the event that a push notification brings, if its agent has sent it.

    Notifications may come twice, and events that were missed come no more: compare ``generation``
    in the event's metadata with that of the last one.

    Args:
        body: Body of the request, as it came.
        headers: Its headers; names in any case.
        url: Address of the receiver, as the config has it: no signature for another one is good.
        keys: What verifies the signature: the secret (``STREAMQ_A2A_PUSH_KEY`` of the workers), a
            public key in PEM, or the text of the agent's ``/.well-known/jwks.json``. Without it
            signatures are not looked at.
        token: The token of the config. Without it none is looked at.

    Raises:
        InvalidTokenError: Signature or token is missing or wrong, or of another body or receiver.
        SerializationError: The body is no event of A2A.
        ConfigurationError: There are neither keys nor a token, or the keys cannot be used.
    """
    if not keys and not token:
        raise ConfigurationError("pass keys= or token=: without either, anybody may be the sender")
    if not isinstance(keys, str | bytes):
        raise ConfigurationError(
            f"keys= is the text of a key or of jwks.json, and not a {type(keys).__name__}: pass "
            "response.text, say, and not response.json()"
        )
    given = {name.lower(): value for name, value in headers.items()}
    found = given.get(TOKEN_HEADER.lower(), "")
    if token and not hmac.compare_digest(found.encode(), token.encode()):
        raise InvalidTokenError("the token of a notification is missing or wrong")
    if keys:
        verified_claims(body, given.get(SIGNATURE_HEADER.lower(), ""), keys=keys, receiver=url)
    try:
        return Parse(body, StreamResponse(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError):
        raise SerializationError("the body of a notification is no event of A2A") from None
