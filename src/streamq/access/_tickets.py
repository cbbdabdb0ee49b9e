"""Issues tickets, each of which opens the events of one stream for a short time.

A ticket is for a browser whose ``EventSource`` can send neither a header nor a cookie.

Design: docs/design/access.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey

from streamq._errors import ConfigurationError
from streamq._events import StreamId

from ._errors import InvalidTokenError
from ._keys import own_keys
from ._rights import Action, Permission, Rights, StreamMatch

TICKET_SECONDS = 60.0
"""How long a ticket opens a connection."""

_TYPE = "streamq-ticket+jwt"
_ALGORITHM = "HS256"
_MOST_BYTES = 8_192
_SETTING = "STREAMQ_GATEWAY_TICKET_KEY"
_OF_A_FILE = f'of a file it takes what is in it: export {_SETTING}="$(cat FILE)"'


class TicketOffice:
    """Issues and accepts tickets; every process with the same secret accepts them.

    Args:
        secret: At least 32 bytes.
        clock: Returns the seconds since the epoch.

    Raises:
        ConfigurationError: The secret is none, or too short.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._key = _secret_key(secret)
        self._clock = clock

    def issue(self, rights: Rights, stream: StreamId) -> tuple[str, float]:
        """Return a ticket for a stream that the rights cover, and the seconds that it is valid.

        Raises:
            ValueError: The stream has a name that no permission can have.
        """
        StreamMatch("exact", stream.name)
        now = self._clock()
        until = now + TICKET_SECONDS
        if rights.expires_at is not None:
            until = min(until, rights.expires_at)
        claims: dict[str, Any] = {
            "exp": until,
            "tenant": stream.tenant,
            "stream": stream.name,
            "sub": rights.subject,
            "token_iss": rights.issuer,
            "token_id": rights.token_id,
            "token_iat": rights.issued_at,
            "token_exp": rights.expires_at,
        }
        header = {"alg": _ALGORITHM, "typ": _TYPE}
        return jwt.encode(header, claims, self._key, algorithms=[_ALGORITHM]), until - now

    def accept(self, ticket: str) -> Rights:
        """Return the rights of a ticket: to read its stream, for as long as its token lasts.

        Raises:
            InvalidTokenError: It is refused; the message has nothing of it.
        """
        try:
            if len(ticket) > _MOST_BYTES:
                raise ValueError
            found = jwt.decode(ticket, self._key, algorithms=[_ALGORITHM])
            if found.header.get("typ") != _TYPE:
                raise ValueError
            claims = found.claims
            ended = self._clock() - claims["exp"]
            rights = Rights(
                tenant=claims["tenant"],
                permissions=(
                    Permission(frozenset({Action.READ}), StreamMatch("exact", claims["stream"])),
                ),
                subject=claims["sub"],
                issuer=claims["token_iss"],
                token_id=claims["token_id"],
                issued_at=claims["token_iat"],
                expires_at=claims["token_exp"],
            )
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise InvalidTokenError("the ticket is none that this gateway has issued") from None
        if ended >= 0:
            raise InvalidTokenError(f"the ticket expired {ended:.0f} s ago: get a new one")
        return rights


def _secret_key(secret: str) -> Key:
    key = own_keys(secret.encode(), _SETTING, file_advice=_OF_A_FILE)[0]
    if not isinstance(key, OctKey):
        raise ConfigurationError(
            f"{_SETTING} is a key pair; give a secret of at least 32 bytes "
            "(`streamq token key --kind secret FILE` makes one)"
        )
    return key
