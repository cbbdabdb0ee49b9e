"""Finds the keys with which receivers verify push notifications.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamq._settings import Settings
from streamq.a2a._push_signing import configured_signer


def public_push_keys(settings: Settings) -> Sequence[Any]:
    """Return the public keys as JSON Web Keys; none without a key to sign with.

    A secret is never published.

    Raises:
        ConfigurationError: The setting has no key to sign with.
    """
    signer = configured_signer(settings)
    key = None if signer is None else signer.public_key()
    return [] if key is None else [key]
