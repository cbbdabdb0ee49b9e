"""Remembers which tokens were revoked, and reads and writes a revocation as a record.

A record names tokens by a digest of issuer, tenant, and id or subject: it is small whatever the
issuer takes for these, and whoever reads the log learns neither.

Design: docs/design/access.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ._moments import moment
from ._rights import Rights

FORMAT = 1
_KEY = re.compile("[0-9a-f]{64}")


def token_key(issuer: str, tenant: str, token_id: str) -> str:
    """Return the name of one token in records."""
    return _digest("token", issuer, tenant, token_id)


def subject_key(issuer: str, tenant: str, subject: str) -> str:
    """Return the name of a subject's tokens in records."""
    return _digest("subject", issuer, tenant, subject)


def tenant_key(tenant: str) -> str:
    """Return the name of a tenant in records."""
    return _digest("tenant", tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Says that some tokens are no longer valid.

    Attributes:
        key: Which ones, from :func:`token_key` or :func:`subject_key`.
        before: The subject's tokens that were issued before this moment, in seconds since the
            epoch; ``None`` for one token.
        forget_at: When none of these tokens can be valid any more by itself.
        tenant_key: Whose tokens they are, from :func:`tenant_key`; ``None`` if that is not known.
        id: Tells this record apart from others.
        concerns: Whose it is, for whoever revokes; it is not stored.
    """

    key: str
    before: float | None = None
    forget_at: float
    tenant_key: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    concerns: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the revocation as JSON-ready data."""
        return {
            "kind": "token" if self.before is None else "subject",
            "key": self.key,
            "before": self.before,
            "forget_at": self.forget_at,
            "tenant": self.tenant_key,
            "id": self.id,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Revocation | None:
        """Return the revocation in a record; ``None`` if there is none that can be understood."""
        key, identity = data.get("key"), data.get("id")
        before, forget_at = moment(data.get("before")), moment(data.get("forget_at"))
        if not isinstance(key, str) or not _KEY.fullmatch(key) or not isinstance(identity, str):
            return None
        kind = data.get("kind")
        if forget_at is None or kind != ("token" if before is None else "subject"):
            return None
        tenant = data.get("tenant")
        if not isinstance(tenant, str) or not _KEY.fullmatch(tenant):
            tenant = None
        return cls(key=key, before=before, forget_at=forget_at, tenant_key=tenant, id=identity)


class RevokedTokens:
    """The revocations that are known, and that are not to be forgotten yet.

    Adding the same ones again, in any order, changes nothing, so that a log may be read twice.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, Revocation] = {}
        self._subjects: dict[str, Revocation] = {}
        self._by_tenant: Counter[str | None] = Counter()
        self._earliest = math.inf  # nothing is to be forgotten before

    def __len__(self) -> int:
        return len(self._tokens) + len(self._subjects)

    def __iter__(self) -> Iterator[Revocation]:
        yield from self._tokens.values()
        yield from self._subjects.values()

    def add(self, new: Revocation) -> None:
        """Add a revocation; of a subject's, the latest moment counts."""
        known = self._tokens if new.before is None else self._subjects
        old = known.get(new.key)
        if old is None:
            self._by_tenant[new.tenant_key] += 1
        else:
            new = replace(
                new,
                tenant_key=old.tenant_key,
                before=None if new.before is None else max(new.before, old.before or 0.0),
                forget_at=max(new.forget_at, old.forget_at),
            )
        known[new.key] = new
        self._earliest = min(self._earliest, new.forget_at)

    def forget(self, now: float) -> None:
        """Drop what concerns no token that could be valid by itself."""
        if now < self._earliest:
            return
        for known in (self._tokens, self._subjects):
            for key in [key for key, each in known.items() if each.forget_at <= now]:
                self._by_tenant[known.pop(key).tenant_key] -= 1
        self._by_tenant += Counter()  # leaves out tenants that have none
        self._earliest = min((each.forget_at for each in self), default=math.inf)

    def count_of(self, tenant_key: str | None) -> int:
        """Return how many of a tenant are known."""
        return self._by_tenant[tenant_key]

    def has(self, key: str) -> bool:
        """Whether something was revoked under a name, whenever."""
        return key in self._tokens or key in self._subjects

    def has_token(self, key: str) -> bool:
        """Whether one token was revoked."""
        return key in self._tokens

    def has_subject(self, key: str, issued_at: float) -> bool:
        """Whether those tokens of a subject were revoked that were issued at a moment."""
        found = self._subjects.get(key)
        return found is not None and issued_at < (found.before or 0.0)


def keys_of(rights: Rights) -> tuple[str, str] | None:
    """Return the names of a token and of its subject in records; ``None`` without a token."""
    if rights.issuer is None or rights.token_id is None or rights.subject is None:
        return None
    return (
        token_key(rights.issuer, rights.tenant, rights.token_id),
        subject_key(rights.issuer, rights.tenant, rights.subject),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
