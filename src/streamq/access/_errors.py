"""Defines the errors of tokens.

Design: docs/design/access.md.
"""

from __future__ import annotations

from streamq._errors import StreamqError


class InvalidTokenError(StreamqError):
    """A token is malformed, forged, expired, revoked, or meant for another server."""

    code = "invalid_token"


class IssuerUnavailableError(StreamqError):
    """An issuer's keys cannot be fetched, so that its tokens cannot be verified."""

    code = "issuer_unavailable"
    retryable = True
