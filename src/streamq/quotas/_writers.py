"""Counts what the writers of this process take of their tenants' quotas.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

import os
import threading
from typing import Self

from streamq._errors import QuotaError
from streamq._events import StreamId
from streamq._settings import Settings

from ._quotas import TenantQuota, load_quotas
from ._throttle import Throttle


class _Tenant:
    """What the writers of one tenant take."""

    def __init__(self) -> None:
        self.writers = 0
        self.throttle: Throttle | None = None

    def throttle_of(self, quota: TenantQuota) -> Throttle | None:
        """Return what delays the tenant's writers, by the quota as it is now."""
        rate = quota.written_bytes_per_second
        if rate is None:
            self.throttle = None
        elif self.throttle is None or self.throttle.bytes_per_second != rate:
            self.throttle = Throttle(rate)
        return self.throttle


class _Process:
    """What the writers of this process take, by tenant."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tenants: dict[str, _Tenant] = {}

    def begin_anew(self) -> None:
        """Forget the parent's writers: a child has none of them, nor a lock that they hold."""
        self.lock = threading.Lock()
        self.tenants = {}


_process = _Process()
os.register_at_fork(after_in_child=_process.begin_anew)


class WriterQuota:
    """The part of its tenant's quota that one writer takes, from its opening to its end.

    Use :meth:`take`.
    """

    def __init__(self, stream: StreamId, quota: TenantQuota) -> None:
        self.attempt_bytes = quota.attempt_bytes
        """Most bytes of chunks that the writer may accept; ``None`` for no bound."""
        self.kept = quota.kept(stream.name)
        """How long the stream may be kept; ``None`` for no bound."""
        self._stream = stream
        self._is_held = True
        with _process.lock:
            tenant = self._tenant = _process.tenants.setdefault(stream.tenant, _Tenant())
            if quota.writers is not None and tenant.writers >= quota.writers:
                raise QuotaError(
                    f"tenant {stream.tenant} has {tenant.writers} open writers in this process, "
                    "all that its quota permits (writers in STREAMQ_QUOTAS); try again when one "
                    "has ended",
                    stream=str(stream),
                )
            tenant.writers += 1
            self._throttle = tenant.throttle_of(quota)

    @classmethod
    def take(cls, stream: StreamId, settings: Settings) -> Self:
        """Count one more writer of a tenant.

        Raises:
            QuotaError: The tenant has as many as it may have in this process. Retryable.
            ConfigurationError: The file of quotas cannot be used.
        """
        return cls(stream, load_quotas(settings).of_tenant(stream.tenant))

    @property
    def delays(self) -> bool:
        """Whether there is a bound of bytes per second, so that :meth:`book` may return a delay."""
        return self._throttle is not None

    def book(self, size: int) -> float:
        """Count bytes that are to be stored; return how many seconds to wait before."""
        return 0.0 if self._throttle is None else self._throttle.book(size)

    def refund(self, size: int) -> None:
        """Take back bytes that were booked and not stored."""
        if self._throttle is not None:
            self._throttle.refund(size)

    def release(self) -> None:
        """Count one writer less. Idempotent."""
        with _process.lock:
            if not self._is_held:
                return
            self._is_held = False
            self._tenant.writers -= 1
            counted = _process.tenants.get(self._stream.tenant)
            if not self._tenant.writers and counted is self._tenant:
                self._forget()

    def _forget(self) -> None:
        """Let go of a tenant without writers, unless what it has written still counts."""
        throttle = self._tenant.throttle
        if throttle is None or throttle.is_idle:
            del _process.tenants[self._stream.tenant]
