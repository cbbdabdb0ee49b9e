"""Waits for brokers that delay our requests because of a quota.

A broker states the delay in its answer and reads nothing more from the connection until it is over.
A request that is sent meanwhile would seem to be unanswered, and a new connection would only raise
the delay.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from streamq_kafka._errors import Throttled

_logger = logging.getLogger("streamq")
_WORTH_A_LINE_SECONDS = 1.0


class Throttling:
    """How long each broker delays our requests.

    Args:
        timeout_seconds: Longest time to wait for a broker.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._until: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()

    def learn(self, node: int, answer: Any) -> None:
        """Note the delay that an answer states."""
        delay = getattr(answer, "throttle_time_ms", 0) / 1_000
        if delay > 0:
            self._until[node] = self._loop.time() + delay
            if delay >= _WORTH_A_LINE_SECONDS:
                _logger.warning(
                    "broker %d of Kafka delays our requests by %.1f s: a quota is used up",
                    node,
                    delay,
                )

    def check(self, node: int) -> None:
        """Raise if a broker delays our requests for longer than a request may take.

        Raises:
            Throttled: It does.
        """
        if node in self._until:
            delay = self._until[node] - self._loop.time()
            if delay > self._timeout_seconds:
                raise _throttled(node, delay)

    async def wait(self, node: int) -> None:
        """Wait until a broker reads our requests."""
        if node in self._until:
            await asyncio.sleep(max(0.0, self._until[node] - self._loop.time()))

    def raise_if_throttled(self, node: int | None = None) -> None:
        """Raise if a broker delays our requests now.

        Args:
            node: The broker; by default any of them.

        Raises:
            Throttled: It does.
        """
        now = self._loop.time()
        for each, until in self._until.items():
            if until > now and node in (None, each):
                raise _throttled(each, until - now)


def _throttled(node: int, seconds: float) -> Throttled:
    return Throttled(f"broker {node} delays our requests for another {seconds:.1f} s")
