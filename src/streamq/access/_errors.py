"""Defines the errors of tokens.

Design: docs/design/access.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamq._errors import StreamqError


class InvalidTokenError(StreamqError):
    """A token is malformed, forged, expired, revoked, or meant for another server.

    Attributes:
        claims: What the token states, where its signature is good; no message has them.
    """

    code = "invalid_token"
    claims: Mapping[str, Any] | None = None


class IssuerUnavailableError(StreamqError):
    """An issuer's keys cannot be fetched, so that its tokens cannot be verified."""

    code = "issuer_unavailable"
    retryable = True
