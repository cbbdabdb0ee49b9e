"""Counts what readers take of the quotas of their tenant and their subject, in this gateway.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

from streamq._events import StreamId
from streamq.quotas import Quota, Quotas, Throttle

from ._allowances import Allowance
from ._clients import Client, Hold, subtract

Kind: TypeAlias = Literal["connections", "streams", "catch_ups", "lists"]
_MOST_THROTTLES = 10_000


class ReaderQuotas:
    """The quotas of all readers of one gateway.

    Args:
        quotas: The bounds.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._is_unbounded = quotas == Quotas()
        self._throttles: dict[str, Throttle] = {}
        self._streams: dict[str, Counter[StreamId]] = {}

    def allowances(self, kind: Kind) -> Callable[[Client], tuple[Allowance, ...]]:
        """Return the function that returns a client's allowances of one kind."""
        return partial(self._allowances, kind)

    def follow(self, client: Client, stream: StreamId) -> Hold:
        """Count a stream that a client follows; the same one counts once for each holder.

        Raises:
            QuotaError: Its tenant, or the holder of its token, follows as many as it may.
        """
        allowances = self._allowances("streams", client)
        for allowance in allowances:
            followed = self._streams.get(allowance.holder, Counter())
            if stream not in followed and len(followed) >= allowance.most:
                raise allowance.exceeded("streams that are followed")
        for allowance in allowances:
            self._streams.setdefault(allowance.holder, Counter())[stream] += 1
        return Hold(lambda: self._leave(allowances, stream))

    def throttles(self, client: Client) -> tuple[Throttle, ...]:
        """Return what delays the events of a client."""
        found = []
        for holder, quota in self._holders(client):
            if quota.bytes_per_second is not None:
                if len(self._throttles) >= _MOST_THROTTLES:
                    self._throttles = {k: v for k, v in self._throttles.items() if not v.is_idle}
                found.append(self._throttles.setdefault(holder, Throttle(quota.bytes_per_second)))
        return tuple(found)

    def _allowances(self, kind: Kind, client: Client) -> tuple[Allowance, ...]:
        bounds = ((holder, getattr(quota, kind)) for holder, quota in self._holders(client))
        return tuple(Allowance(holder, most) for holder, most in bounds if most is not None)

    def _holders(self, client: Client) -> list[tuple[str, Quota]]:
        if self._is_unbounded or not client.tenant:
            return []
        found: list[tuple[str, Quota]] = [
            (f"tenant {client.tenant}", self._quotas.of_tenant(client.tenant))
        ]
        if client.subject is not None:
            holder = f"subject {client.tenant}/{client.subject}"
            found.append((holder, self._quotas.of_subject(client.tenant, client.subject)))
        return found

    def _leave(self, allowances: tuple[Allowance, ...], stream: StreamId) -> None:
        for allowance in allowances:
            followed = self._streams[allowance.holder]
            subtract(followed, [stream])
            if not followed:
                del self._streams[allowance.holder]
