"""Makes tokens with a key of one's own, for development and for small set-ups.

Design: docs/design/access.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from joserfc import jwt
from joserfc.jwk import Key, OKPKey

from streamq._errors import ConfigurationError
from streamq._events import user_stream
from streamq._settings import Settings, load_settings

from ._claims import DETAILS, TENANT, details_of
from ._granting import permission_on
from ._issuers import OWN_ISSUER
from ._keys import algorithms_of, own_keys, read_file
from ._moments import MOST_SECONDS

DEFAULT_LIFETIME = timedelta(minutes=15)
"""How long a token is valid unless the call says otherwise."""


def mint_token(
    *,
    stream: str | None = None,
    workflow: str | None = None,
    prefix: str | None = None,
    every: bool = False,
    actions: Collection[str] = ("read", "cancel"),
    subject: str = "anonymous",
    tenant: str | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    settings: Settings | None = None,
) -> str:
    """Return a token for the gateway, signed with the key that the settings give.

    Give one of ``stream``, ``workflow``, ``prefix`` and ``every``.

    Args:
        stream: Name of one stream.
        workflow: Id of a workflow, for all streams of its runs.
        prefix: The stream of this name, and all whose names continue it after a slash.
        every: All streams of the tenant. It has to be said: an id that is ``None`` by mistake would
            otherwise open everything.
        actions: What the token permits: ``read``, ``describe``, ``list``, ``cancel``, ``delete``,
            ``write``, ``admin``.
        subject: Who gets it, for quotas, revocation and logs.
        tenant: Whose streams; by default, and for ``None`` only, the configured tenant.
        lifetime: How long it is valid. Browsers get a new one before it ends.
        settings: By default the configured ones.

    Raises:
        ConfigurationError: No key is configured, or an argument cannot be used.
    """
    chosen = settings or load_settings()
    key = _signing_key(chosen)
    if not subject or not actions:
        raise ConfigurationError("a token needs a subject, and an action; the one given is empty")
    try:
        permission = permission_on(
            actions, stream=stream, workflow=workflow, prefix=prefix, every=every
        )
        tenant = user_stream(chosen.tenant if tenant is None else tenant, "x").tenant
    except ValueError as exc:
        raise ConfigurationError(f"this token cannot be made: {exc}") from None
    if not lifetime > timedelta(0):
        raise ConfigurationError(f"a token's lifetime has to be positive, not {lifetime}")
    now = time.time()
    if now + lifetime.total_seconds() > MOST_SECONDS:
        raise ConfigurationError(f"a token's lifetime cannot be {lifetime.days} days")
    claims: dict[str, Any] = {
        "iss": OWN_ISSUER,
        "aud": OWN_ISSUER,
        "sub": subject,
        "client_id": subject,
        "jti": secrets.token_urlsafe(16),
        "iat": int(now),
        "exp": int(now + lifetime.total_seconds()),
        TENANT: tenant,
        DETAILS: details_of([permission]),
    }
    algorithm = algorithms_of(key)[0]
    header = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid}
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def new_secret() -> str:
    """Return a key for HMAC, as text."""
    return secrets.token_urlsafe(48)


def new_ed25519_key() -> tuple[str, str]:
    """Return a private key to sign with and the public one to verify with, as PEM."""
    made = OKPKey.generate_key("Ed25519")
    return made.as_pem(private=True).decode(), made.as_pem(private=False).decode()


def _signing_key(settings: Settings) -> Key:
    if settings.token_key is not None:
        where = "STREAMQ_TOKEN_KEY"
        found = own_keys(settings.token_key.get_secret_value().encode(), where)
    elif settings.token_key_file is not None:
        path = settings.token_key_file
        where = f"the file {str(path)!r} (STREAMQ_TOKEN_KEY_FILE)"
        found = own_keys(read_file(path), where)
    else:
        raise ConfigurationError(
            "there is no key to sign tokens with: set STREAMQ_TOKEN_KEY_FILE to a file that "
            "`streamq token key` made, or STREAMQ_TOKEN_KEY"
        )
    if not found[0].is_private:
        raise ConfigurationError(
            f"{where} has a public key, which only verifies tokens: to make them, name the private "
            "key of the pair (the file without .pub)"
        )
    return found[0]
