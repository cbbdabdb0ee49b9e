"""Signs push notifications, and verifies their signatures: a token with the digest of the body.

Needs joserfc.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.access import InvalidTokenError
from streamq.access._keys import ALGORITHMS, algorithms_of, matching, own_keys

SIGNATURE_HEADER = "X-A2A-Notification-Signature"
TOKEN_HEADER = "X-A2A-Notification-Token"

_DIGEST = "request_body_sha256"
_LIFETIME_SECONDS = 300
_SETTING = "STREAMQ_A2A_PUSH_KEY"


class NotificationSigner:
    """Signs notifications with a key.

    Args:
        key: The key: a secret, or a private one.
    """

    def __init__(self, key: Key) -> None:
        self._key = key
        self._algorithm = algorithms_of(key)[0]

    def sign(self, body: bytes, *, issuer: str, receiver: str, task_id: str) -> str:
        """Return the signature of a notification's body: a JWT that is good for five minutes."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": issuer,
            "aud": receiver,
            "iat": now,
            "exp": now + _LIFETIME_SECONDS,
            "jti": uuid.uuid4().hex,
            "taskId": task_id,
            _DIGEST: hashlib.sha256(body).hexdigest(),
        }
        header = {"alg": self._algorithm, "typ": "JWT", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=[self._algorithm])

    def public_key(self) -> dict[str, Any] | None:
        """Return the public key as a JSON Web Key; ``None`` for a secret."""
        if isinstance(self._key, OctKey):
            return None
        return {**self._key.as_dict(private=False), "use": "sig", "alg": self._algorithm}


def configured_signer(settings: Settings) -> NotificationSigner | None:
    """Return what signs notifications by the settings; ``None`` if they have no key.

    Raises:
        ConfigurationError: It is no key to sign with.
    """
    if settings.a2a_push_key is None:
        return None
    text = settings.a2a_push_key.get_secret_value().encode()
    key = own_keys(text, _SETTING, file_advice="the variable has the key itself")[0]
    if not key.is_private:
        raise ConfigurationError(f"{_SETTING} is a public key, which only verifies signatures")
    return NotificationSigner(key)


def verified_claims(
    body: bytes, signature: str, *, keys: str | bytes, receiver: str, leeway_seconds: float = 60.0
) -> Mapping[str, Any]:
    """Return what the signature of a body states, if it is good.

    Raises:
        InvalidTokenError: It is missing, forged, expired, or of another body or receiver.
        ConfigurationError: The keys cannot be used.
    """
    found = own_keys(
        keys.encode() if isinstance(keys, str) else keys, "keys", file_advice="pass its content"
    )
    try:
        header = jws.extract_compact(signature.encode()).headers()
        name, key_id = header.get("alg"), header.get("kid")
        claims = _claims(signature, matching(found, key_id, str(name)), str(name))
        _check(claims, body, receiver, leeway_seconds)
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise InvalidTokenError(f"the signature of a notification is refused: {exc}") from None
    return claims


def _claims(signature: str, keys: Sequence[Key], algorithm: str) -> Mapping[str, Any]:
    if algorithm not in ALGORITHMS:
        raise ValueError("it has no algorithm that is known")
    failure: JoseError | None = None
    for key in keys:
        try:
            return jwt.decode(signature, key, algorithms=[algorithm]).claims
        except JoseError as exc:
            failure = exc
    raise failure or ValueError("no key is made for it")


def _check(claims: Mapping[str, Any], body: bytes, receiver: str, leeway_seconds: float) -> None:
    now = time.time()
    if claims["exp"] + leeway_seconds < now or claims["iat"] - leeway_seconds > now:
        raise ValueError("it has expired, or the clocks differ")
    if claims["aud"] != receiver:
        raise ValueError("it is meant for another receiver")
    if not hmac.compare_digest(str(claims[_DIGEST]), hashlib.sha256(body).hexdigest()):
        raise ValueError("it belongs to another body")
