"""Verifies access tokens (RFC 9068) and returns the rights in them.

Design: docs/design/access.md.
"""

from __future__ import annotations

import binascii
import functools
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from streamq._errors import ConfigurationError
from streamq.driver import close_all

from ._claims import permissions_of
from ._errors import InvalidTokenError
from ._issuers import Issuer
from ._moments import SKEW_SECONDS, moment
from ._rights import Rights

MOST_TOKEN_BYTES = 8_192
"""Longest token. Common servers and proxies accept headers of 8 KiB."""

_TYPES = ("at+jwt", "application/at+jwt")
_MOST_TRIED_KEYS = 5
_TO_BASE64 = bytes.maketrans(b"-_+/", b"+/..")  # "." is in neither alphabet


class TokenVerifier:
    """Verifies the tokens of some issuers.

    Args:
        issuers: The issuers. Each has a name of its own.
        clock: Returns the seconds since the epoch.

    Raises:
        ConfigurationError: Two issuers have one name.
    """

    def __init__(self, issuers: Collection[Issuer], clock: Callable[[], float] = time.time) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._clock = clock
        if len(self._issuers) < len(issuers):
            names = sorted(issuer.issuer for issuer in issuers)
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigurationError(f"issuer {twice!r} is configured twice")

    async def verify(self, token: str) -> Rights:
        """Return the rights of a token.

        Checked are: its size; its type ``at+jwt``; the issuer, one of ours to the letter; the
        algorithm, one that this issuer uses; the signature, by a key of this issuer; ``crit``,
        which must name nothing that is unknown; ``exp``, without any leeway, ``nbf`` and ``iat``,
        with 5 s for clocks that differ; ``aud``; ``sub`` and ``jti``, by which it can be revoked;
        the tenant, one that the issuer may speak for; every right.

        Raises:
            InvalidTokenError: It is refused. The message says why, and has nothing of the token but
                the claim that is wrong.
            IssuerUnavailableError: The keys of its issuer cannot be fetched.
        """
        header, payload, claims = _parts(token)
        issuer = self._issuer_of(claims)
        algorithm, key_id = _named_key(header, issuer)
        keys = await issuer.keys.find(key_id, algorithm)
        _check_signature(token, payload, keys[:_MOST_TRIED_KEYS], algorithm)
        try:
            return self._signed_rights(claims, issuer)
        except InvalidTokenError as exc:
            exc.claims = claims
            raise

    @property
    def issuers(self) -> Collection[Issuer]:
        """The issuers."""
        return self._issuers.values()

    def twin(self) -> TokenVerifier:
        """Return another one for another event loop: same issuers, and keys as they are now."""
        issuers = [replace(each, keys=each.keys.twin()) for each in self._issuers.values()]
        return TokenVerifier(issuers, self._clock)

    async def aclose(self) -> None:
        """Release the connections to issuers. Idempotent."""
        await close_all(*(issuer.keys.aclose for issuer in self._issuers.values()))

    def _signed_rights(self, claims: Mapping[str, Any], issuer: Issuer) -> Rights:
        """Return the rights of a token whose signature is good."""
        issued_at, expires_at = self._checked_times(claims, issuer)
        _check_audience(claims, issuer)
        tenant = issuer.tenant_of(claims)
        if tenant is None:
            raise InvalidTokenError(
                f"the token names no tenant (claim {issuer.tenant_claim!r}) that its issuer may "
                "speak for"
            )
        return Rights(
            tenant=tenant,
            permissions=permissions_of(claims),
            subject=_text(claims, "sub"),
            issuer=issuer.issuer,
            token_id=_text(claims, "jti"),
            issued_at=issued_at,
            expires_at=expires_at,
        )

    def _issuer_of(self, claims: Mapping[str, Any]) -> Issuer:
        """Return whose token it claims to be; nothing is verified yet."""
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise InvalidTokenError("the token's issuer (iss) is not one of those configured here")
        return issuer

    def _checked_times(self, claims: Mapping[str, Any], issuer: Issuer) -> tuple[float, float]:
        """Return when a token was issued and when it ends."""
        now = self._clock()
        issued_at, expires_at = _stated_moment(claims, "iat"), _stated_moment(claims, "exp")
        if expires_at <= now:
            raise InvalidTokenError(f"the token expired {now - expires_at:.0f} s ago")
        most = issuer.max_lifetime_seconds
        if most is not None and expires_at > min(now, issued_at) + most:
            raise InvalidTokenError(f"the token is valid for longer than {most:g} s")
        if issued_at > now + SKEW_SECONDS:
            raise InvalidTokenError("the token was issued in the future (iat): compare the clocks")
        if "nbf" in claims and _stated_moment(claims, "nbf") > now + SKEW_SECONDS:
            raise InvalidTokenError("the token is not valid yet (nbf)")
        return issued_at, expires_at


class _Registry(JWSRegistry):
    """The algorithm of one token, without warnings: whether it may be used is checked before."""

    def get_alg(self, name: str) -> Any:
        if self.allowed is None or name not in self.allowed:
            raise UnsupportedAlgorithmError(f"algorithm {name!r} is not expected")
        return self.algorithms[name]


@functools.cache
def _registry(algorithm: str) -> _Registry:
    return _Registry(algorithms=[algorithm], strict_check_header=False)


def _named_key(header: Mapping[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """Return the algorithm and the id of the key that a header names."""
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidTokenError("the token is no access token: its type (typ) is not at+jwt")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise InvalidTokenError("the token's algorithm (alg) is not one that its issuer uses")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise InvalidTokenError("the token's key id (kid) is no text")
    return algorithm, key_id


def _check_signature(token: str, payload: bytes, keys: Collection[Key], algorithm: str) -> None:
    """Check that one of the keys has signed a token with this payload."""
    for key in keys:
        try:
            signed = jws.deserialize_compact(token, key, registry=_registry(algorithm))
            if signed.payload != payload:
                raise InvalidTokenError("the token is malformed: another payload is signed")
            return
        except BadSignatureError:
            continue
        except (JoseError, ValueError, TypeError, RecursionError) as exc:
            raise InvalidTokenError(f"the token is malformed: {type(exc).__name__}") from None
    raise InvalidTokenError("no key of the token's issuer has signed it")


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if issuer.audience not in named:
        raise InvalidTokenError(f"the token is not meant for {issuer.audience!r} (aud)")


def _parts(token: str) -> tuple[Mapping[str, Any], bytes, Mapping[str, Any]]:
    """Return the header of a token, its payload and the claims in that; nothing is verified yet."""
    if len(token) > MOST_TOKEN_BYTES:
        raise InvalidTokenError(f"the token is larger than {MOST_TOKEN_BYTES} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidTokenError("the token is no signed JSON Web Token (three parts with dots)")
    header, payload = _decoded(parts[0]), _decoded(parts[1])
    return _json_object(header), payload, _json_object(payload)


def _decoded(part: str) -> bytes:
    try:
        padded = part.encode("ascii").translate(_TO_BASE64) + b"=" * (-len(part) % 4)
        return binascii.a2b_base64(padded, strict_mode=True)
    except ValueError:
        return b""


def _json_object(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidTokenError("the token is malformed: a part of it is no JSON object")
    return found


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidTokenError(f"the token has no {name}, a text")
    return value


def _stated_moment(claims: Mapping[str, Any], name: str) -> float:
    found = moment(claims.get(name))
    if found is None:
        raise InvalidTokenError(f"the token has no {name}, a number of seconds")
    return found
