"""Encrypts tokens and credentials of push notifications before Temporal keeps them.

Needs joserfc.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from streamq._errors import ConfigurationError
from streamq._settings import Settings

from ._push_config import PushConfig

_HEADER = {"alg": "dir", "enc": "A256GCM"}
_LEAST_BYTES = 32


def check_push_secret(settings: Settings) -> None:
    """Check the secret before the first config needs it.

    Raises:
        ConfigurationError: It is too short.
    """
    if settings.a2a_push_secret is not None:
        _key(settings)


def sealed(config: PushConfig, settings: Settings) -> PushConfig:
    """Return a config whose token and credentials are encrypted, if the settings have a secret.

    Raises:
        ConfigurationError: The secret is too short.
    """
    if settings.a2a_push_secret is None or not (config.token or config.credentials):
        return config
    content = json.dumps({"token": config.token, "credentials": config.credentials}).encode()
    text = jwe.encrypt_compact(_HEADER, content, _key(settings))
    return dataclasses.replace(config, token="", credentials="", sealed=text)


def opened(config: PushConfig, settings: Settings) -> PushConfig:
    """Return a config with its token and credentials.

    Raises:
        ConfigurationError: The settings have no secret, or another one.
    """
    if not config.sealed:
        return config
    if settings.a2a_push_secret is None:
        raise ConfigurationError(
            "the credentials of a push notification config are encrypted: set "
            "STREAMQ_A2A_PUSH_SECRET as where the config was set"
        )
    try:
        content = json.loads(jwe.decrypt_compact(config.sealed, _key(settings)).plaintext or b"{}")
    except (JoseError, ValueError):
        raise ConfigurationError(
            "the credentials of a push notification config were encrypted with another "
            "STREAMQ_A2A_PUSH_SECRET"
        ) from None
    return dataclasses.replace(config, sealed="", **content)


def _key(settings: Settings) -> OctKey:
    assert settings.a2a_push_secret is not None
    secret = settings.a2a_push_secret.get_secret_value().encode()
    if len(secret) < _LEAST_BYTES:
        raise ConfigurationError(
            f"STREAMQ_A2A_PUSH_SECRET is too weak: give a secret of at least {_LEAST_BYTES} bytes"
        )
    return OctKey.import_key(hashlib.sha256(b"streamq a2a push" + secret).digest())
