"""Revokes tokens: one by its id, or all that a subject got before a moment.

Design: docs/design/access.md.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime

from streamq._errors import ConfigurationError
from streamq._events import shown
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_queue

from ._issuers import OWN_ISSUER, Issuer, configured_issuers, is_tenant
from ._moments import MOST_SECONDS, SKEW_SECONDS
from ._revocation_log import RevocationLog
from ._revocations import Revocation, keys_of, subject_key, tenant_key, token_key
from ._verifying import TokenVerifier

KEPT_SECONDS = 3_650 * 86_400.0
"""How long a revocation is kept if nothing says how long its tokens last."""

_MARGIN_SECONDS = 300.0
"""How much longer than its tokens a revocation is kept: clocks differ."""


async def revoke_token(
    token: str | None = None,
    *,
    token_id: str | None = None,
    issuer: str | None = None,
    tenant: str | None = None,
    expires_at: datetime | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
) -> Revocation:
    """Revoke one token, given by itself or by its id.

    When this returns, every gateway of this backend refuses it within 2 s and has ended the
    connections that were opened with it; one that does not reach the backend refuses all tokens
    after ``STREAMQ_GATEWAY_REVOCATION_SECONDS``.

    Args:
        token: The token, which has to be valid otherwise.
        token_id: Its ``jti``, if the token itself is not at hand.
        issuer: Who issued it (``iss``), with ``token_id``; by default the only configured issuer,
            and without any it has to be given.
        tenant: Its tenant, with ``token_id``; by default that of all tokens of this issuer, or else
            the configured one.
        expires_at: When it ends, with ``token_id``. Without it the revocation is kept for as long
            as the issuer's tokens last at most, or ten years.
        queue: An open queue to use; it stays open.
        settings: By default the configured ones.

    Raises:
        ConfigurationError: An argument is missing or cannot be used, or is given beside a token,
            which states the same.
        InvalidTokenError: The token is refused anyway.
        CapabilityError: The backend cannot keep revocations.
        StreamqError: It cannot be reached.

    Cancellation: it is revoked, or not; repeating the call is harmless.
    """
    chosen = settings or load_settings()
    if (token is None) == (token_id is None):
        raise ConfigurationError("say which token to revoke: the token itself, or its id")
    issuers = configured_issuers(chosen)
    if token is not None:
        if issuer is not None or tenant is not None or expires_at is not None:
            raise ConfigurationError(
                "the token states its issuer, its tenant and when it expires: leave these out, or "
                "give its id instead of the token"
            )
        revocation = await verified_revocation(TokenVerifier(issuers), token)
    else:
        assert token_id is not None
        revocation = token_revocation(
            issuers,
            token_id,
            issuer=issuer,
            tenant=_usual_tenant(issuers, issuer, chosen) if tenant is None else tenant,
            expires_at=None if expires_at is None else expires_at.timestamp(),
        )
    await _store(revocation, queue, chosen)
    return revocation


async def revoke_subject(
    subject: str,
    *,
    before: datetime | None = None,
    issuer: str | None = None,
    tenant: str | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
) -> Revocation:
    """Revoke every token that a subject got before a moment.

    Issuers' clocks may be ahead of ours by 5 s, and they state whole seconds. By default all that
    is dated until 5 s from now is revoked, so that no token is left that the subject has now: a new
    one is good if it is issued 5 s later.

    Args:
        subject: The tokens' ``sub``.
        before: Tokens that were issued before it (``iat``, by the issuer's clock); by default 5 s
            from now.
        issuer: As for :func:`revoke_token`.
        tenant: As for :func:`revoke_token`.
        queue: An open queue to use; it stays open.
        settings: By default the configured ones.

    Raises:
        StreamqError: As for :func:`revoke_token`.

    Cancellation: they are revoked, or not; repeating the call is harmless.
    """
    chosen = settings or load_settings()
    issuers = configured_issuers(chosen)
    revocation = subject_revocation(
        issuers,
        subject,
        issuer=issuer,
        tenant=_usual_tenant(issuers, issuer, chosen) if tenant is None else tenant,
        before=None if before is None else before.timestamp(),
    )
    await _store(revocation, queue, chosen)
    return revocation


async def verified_revocation(verifier: TokenVerifier, token: str) -> Revocation:
    """Return the revocation of a token that is valid otherwise; the verifier is closed.

    Raises:
        StreamqError: As for :meth:`TokenVerifier.verify`.
    """
    try:
        rights = await verifier.verify(token)
    finally:
        await verifier.aclose()
    keys = keys_of(rights)
    assert keys is not None
    assert rights.expires_at is not None
    return Revocation(
        key=keys[0],
        forget_at=_forget_at(rights.expires_at),
        tenant_key=tenant_key(rights.tenant),
        concerns=f"the token {shown(rights.token_id or '')} of subject "
        f"{shown(rights.subject or '')}, tenant {rights.tenant}, issuer {rights.issuer}",
    )


def token_revocation(
    issuers: Collection[Issuer],
    token_id: str,
    *,
    issuer: str | None,
    tenant: str,
    expires_at: float | None,
) -> Revocation:
    """Return the revocation of a token that is known by its id.

    Raises:
        ConfigurationError: The issuer is not known, or an argument cannot be used.
    """
    whose = _whose(issuers, issuer)
    _check(token_id, "the id of the token")
    _check_tenant(issuers, whose, tenant)
    now = time.time()
    if expires_at is not None and not now < expires_at <= MOST_SECONDS:
        raise ConfigurationError(
            "the time when the token expires has to be in the future; one that has expired is "
            "refused anyway"
        )
    last = _last(issuers, whose, now) if expires_at is None else _forget_at(expires_at)
    return Revocation(
        key=token_key(whose, tenant, token_id),
        forget_at=last,
        tenant_key=tenant_key(tenant),
        concerns=f"the token {shown(token_id)}, tenant {tenant}, issuer {whose}",
    )


def subject_revocation(
    issuers: Collection[Issuer],
    subject: str,
    *,
    issuer: str | None,
    tenant: str,
    before: float | None,
) -> Revocation:
    """Return the revocation of the tokens that a subject got before a moment.

    Raises:
        ConfigurationError: The issuer is not known, or an argument cannot be used.
    """
    whose = _whose(issuers, issuer)
    _check(subject, "the subject")
    _check_tenant(issuers, whose, tenant)
    now = time.time()
    # A token that exists by now may be dated as far ahead as a verifier accepts.
    until = now + SKEW_SECONDS if before is None else before
    if not 0 <= until <= MOST_SECONDS:
        raise ConfigurationError(
            "the moment before which tokens are revoked has to be between the years 1970 and 9999"
        )
    return Revocation(
        key=subject_key(whose, tenant, subject),
        before=until,
        forget_at=_last(issuers, whose, max(until, now)),
        tenant_key=tenant_key(tenant),
        concerns=f"the tokens of subject {shown(subject)}, tenant {tenant}, issuer {whose}",
    )


def _whose(issuers: Collection[Issuer], issuer: str | None) -> str:
    names = [each.issuer for each in issuers]
    if issuer is None:
        if not names:
            raise ConfigurationError(
                "no issuer is configured, so that nothing says whose tokens to revoke: set "
                "STREAMQ_TOKEN_KEY_FILE, STREAMQ_TOKEN_KEY or STREAMQ_TOKEN_ISSUERS as for the "
                f"gateway, or name the issuer ({OWN_ISSUER!r} for tokens of `streamq token new`)"
            )
        if len(names) > 1:
            raise ConfigurationError(
                f"say who issued the tokens: one of {', '.join(map(repr, names))}"
            )
        return names[0]
    if names and issuer not in names:
        raise ConfigurationError(
            f"no issuer {issuer!r} is configured, and no gateway accepts its tokens; configured: "
            f"{', '.join(map(repr, names))}"
        )
    return issuer


def _usual_tenant(issuers: Collection[Issuer], issuer: str | None, settings: Settings) -> str:
    """Return the tenant of all tokens of an issuer; where they state it, the configured one."""
    whose = _whose(issuers, issuer)
    bound = next((each.tenant for each in issuers if each.issuer == whose), None)
    return settings.tenant if bound is None else bound


def _check(value: str, what: str) -> None:
    if not value:
        raise ConfigurationError(f"{what} is empty; give the one that the tokens have")


def _check_tenant(issuers: Collection[Issuer], whose: str, tenant: str) -> None:
    if not is_tenant(tenant):
        raise ConfigurationError(f"tenant {tenant!r} is none that tokens can have")
    issuer = next((each for each in issuers if each.issuer == whose), None)
    if issuer is not None and issuer.tenant_of({issuer.tenant_claim: tenant}) != tenant:
        raise ConfigurationError(
            f"issuer {whose!r} makes no tokens of tenant {tenant!r}, so that nothing would be "
            "revoked: name the tenant of the tokens"
        )


def _last(issuers: Collection[Issuer], issuer: str, moment: float) -> float:
    """Return when the last token of an issuer that exists at a moment has ended."""
    longest = next((each.max_lifetime_seconds for each in issuers if each.issuer == issuer), None)
    return _forget_at(moment + (KEPT_SECONDS if longest is None else longest))


def _forget_at(last: float) -> float:
    """Return until when a revocation is kept whose last token ends at a moment."""
    return min(last + _MARGIN_SECONDS, MOST_SECONDS)


async def _store(revocation: Revocation, queue: ChunkQueue | None, settings: Settings) -> None:
    if queue is not None:
        await RevocationLog(queue, settings).add(revocation)
        return
    async with open_queue(settings) as opened:
        if not opened.capabilities.cross_process:
            raise ConfigurationError(
                f"backend {opened.backend!r} is seen by this process only, and no gateway would "
                "learn of the revocation; send it to the gateway itself: POST /revocations"
            )
        await RevocationLog(opened, settings).add(revocation)
