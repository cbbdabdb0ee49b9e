"""Examines SQS, the settings and some queues that exist, for ``streamq doctor``.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from streamq.driver import Finding, QueueOptions, StreamNotFoundError, StreamqError, together
from streamq_aws import clock_finding

from ._naming import QueueNames
from ._requests import LONGEST_RETENTION, SqsRequests
from ._settings import SqsSettings

_EXAMINED = 20
_FEWEST_RECEIVES = 1_000  # the most that SQS allows before it moves a message away
_DAY_SECONDS = 86_400
_KIND = {True: "FIFO", False: "standard"}


class Doctor:
    """Examines what streams in SQS need.

    Args:
        options: The options with which queues are opened.
        settings: The driver's settings.
        requests: Makes the requests.
    """

    def __init__(self, options: QueueOptions, settings: SqsSettings, requests: SqsRequests) -> None:
        self._ttl = options.ttl.total_seconds()
        self._settings = settings
        self._requests = requests

    async def examine(self) -> list[Finding]:
        """Examine everything, and change nothing."""
        prefix = self._settings.queue_prefix
        await self._requests.start(QueueNames(prefix, fifo=self._settings.fifo))
        if not self._requests.may_list:
            listing = Finding(
                "SQS",
                True,
                "it answers, and does not let us list queues: no queue is examined, and `streamq "
                "ls` and sweeps are refused",
                "grant sqs:ListQueues, which shows the queues of every tenant, or let an operator "
                "sweep",
                is_warning=True,
            )
            return [listing, self._time_to_live(), self._visibility()]
        answer = await self._requests.some(prefix, _EXAMINED)
        return [
            Finding("SQS", True, "it answers, and lets us list queues"),
            clock_finding(answer),
            self._time_to_live(),
            self._visibility(),
            await self._queues(answer.get("QueueUrls") or ()),
        ]

    def _time_to_live(self) -> Finding:
        days = LONGEST_RETENTION // _DAY_SECONDS
        if self._ttl > LONGEST_RETENTION:
            return Finding(
                "time to live",
                False,
                f"streams are kept for {self._ttl / _DAY_SECONDS:g} days, and SQS removes "
                f"messages after {days}",
                f"set STREAMQ_TTL_SECONDS to {LONGEST_RETENTION} at most, or use another backend",
            )
        return Finding("time to live", True, f"no longer than the {days} days of SQS")

    def _visibility(self) -> Finding:
        hidden, held = self._settings.visibility_seconds, self._settings.hold_seconds
        if held < hidden:
            return Finding(
                "visibility",
                True,
                f"a slow reader keeps a message for {held} s, and SQS hides it for {hidden} s",
                "set STREAMQ_SQS_HOLD_SECONDS to more than STREAMQ_SQS_VISIBILITY_SECONDS",
                is_warning=True,
            )
        return Finding("visibility", True, f"messages are hidden for {hidden} s and held {held} s")

    async def _queues(self, urls: Any) -> Finding:
        kind = _KIND[self._settings.fifo]
        if not urls:
            return Finding("queues", True, f"{kind}, made when streams are opened; try --write")
        try:
            examined = await together(self._examine(url) for url in urls)
        except StreamqError as exc:
            return Finding("queues", True, f"{kind}; not examined: {exc}")
        wrong = [each for each in examined if each is not None]
        if not wrong:
            return Finding("queues", True, f"{kind}; {len(urls)} of those that exist are right")
        return min(wrong, key=lambda each: (each.ok, not each.is_warning))

    async def _examine(self, url: str) -> Finding | None:
        """Return what is wrong with a queue that exists; ``None`` if nothing is, or it is gone."""
        try:
            found = await self._requests.attributes(url)
        except StreamNotFoundError:
            return None
        subject = f"queue {url.rpartition('/')[2]}"
        is_fifo = found.get("FifoQueue") == "true"
        if is_fifo != self._settings.fifo:
            return Finding(
                subject,
                True,
                f"it is a {_KIND[is_fifo]} queue: with STREAMQ_SQS_FIFO="
                f"{str(self._settings.fifo).lower()} its stream is not found",
                "set the same for writers and readers, or delete the queue",
                is_warning=True,
            )
        retention = int(found.get("MessageRetentionPeriod", LONGEST_RETENTION))
        if retention < self._ttl:
            return Finding(
                subject,
                False,
                f"it removes messages after {retention} s, before its stream expires",
                f"set MessageRetentionPeriod to {LONGEST_RETENTION}, or shorten "
                "STREAMQ_TTL_SECONDS",
            )
        receives = _receives(found)
        if receives is not None and receives < _FEWEST_RECEIVES:
            return Finding(
                subject,
                False,
                f"after {receives} receives it moves a message to a dead-letter queue, which "
                "readers that give messages back reach",
                f"set maxReceiveCount of its RedrivePolicy to {_FEWEST_RECEIVES}",
            )
        if int(found.get("DelaySeconds", 0)):
            return Finding(
                subject,
                True,
                f"it delays each message by {found['DelaySeconds']} s",
                "set DelaySeconds to 0",
                is_warning=True,
            )
        if _is_public(found.get("Policy")):
            return Finding(
                subject,
                False,
                "its policy is public: anybody may read or write its stream",
                "narrow the `Principal` of the policy",
            )
        return None


def _receives(attributes: Mapping[str, str]) -> int | None:
    """Return after how many receives a message is moved away; ``None`` if never."""
    try:
        return int(json.loads(attributes.get("RedrivePolicy") or "{}")["maxReceiveCount"])
    except (KeyError, TypeError, ValueError):
        return None


def _is_public(policy: str | None) -> bool:
    try:
        statements = json.loads(policy or "{}").get("Statement", [])
    except ValueError:
        return False
    for each in [statements] if isinstance(statements, dict) else statements:
        principal = each.get("Principal")
        is_anybody = principal == "*" or (
            isinstance(principal, dict) and principal.get("AWS") in ("*", ["*"])
        )
        if each.get("Effect") == "Allow" and is_anybody and not each.get("Condition"):
            return True
    return False


@asynccontextmanager
async def open_doctor(options: QueueOptions, settings: SqsSettings) -> AsyncIterator[Doctor]:
    """Give a doctor, and close its client afterwards."""
    requests = SqsRequests(settings)
    try:
        yield Doctor(options, settings, requests)
    finally:
        await requests.aclose()
