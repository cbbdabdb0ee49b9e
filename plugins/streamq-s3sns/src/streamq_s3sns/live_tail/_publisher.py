"""Sends notifications of new segments to an SNS topic.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import cast

from streamq_s3sns._errors import client_errors
from streamq_s3sns.requests._lazy_clients import LazyClients

from ._wake_up_queue import scope_attribute, unexpected

_logger = logging.getLogger("streamq.s3sns")

_BATCH = 10
_AT_ONCE = 4
_PAUSE_SECONDS = 0.5


class NotificationPublisher:
    """Notifies the readers of all processes, in the background.

    Args:
        clients: Open the client of SNS.
        topic_arn: The topic.
        scope: Bucket and prefix: only readers of the same scope receive the notifications.
    """

    def __init__(self, clients: LazyClients, topic_arn: str, scope: str) -> None:
        self._clients = clients
        self._topic = topic_arn
        self._scope = scope
        self._pending: dict[str, int] = {}
        self._publishers: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0
        self._has_failed = False
        self._clock = asyncio.get_running_loop().time

    def publish(self, directory: str, number: int) -> None:
        """Notify readers of a new segment, soon. Never fails, never waits."""
        self._pending[directory] = number  # a stream that is pending already keeps its turn
        busy = len(self._publishers)
        is_wanted = not busy or (busy < _AT_ONCE and len(self._pending) >= _BATCH)
        if is_wanted and self._clock() >= self._paused_until:
            task = asyncio.create_task(self._publish(), name="streamq-s3sns-publisher")
            self._publishers.add(task)

    async def aclose(self, patience_seconds: float) -> None:
        """Send what is pending, at most so many seconds; then cancel it."""
        publishers = set(self._publishers)
        if publishers:
            await asyncio.wait(publishers, timeout=patience_seconds)
            for publisher in publishers:
                publisher.cancel()
            await asyncio.gather(*publishers, return_exceptions=True)

    async def _publish(self) -> None:
        try:
            while self._pending:
                # Streams that have waited longest come first, so that busy streams starve none.
                some = list(itertools.islice(self._pending.items(), _BATCH))
                for directory, _ in some:
                    del self._pending[directory]
                with client_errors(f"topic {self._topic}"):
                    sns = await self._clients.client("sns")
                    answer = await sns.publish_batch(
                        TopicArn=self._topic,
                        PublishBatchRequestEntries=[
                            {
                                "Id": str(i),
                                "Message": f"{number} {directory}",
                                "MessageAttributes": scope_attribute(self._scope),
                            }
                            for i, (directory, number) in enumerate(some)
                        ],
                    )
                failed = answer.get("Failed") or ()
                self._log(failed[0].get("Code", "refused") if failed else None)
        except Exception as exc:  # noqa: BLE001 - a notification is a hint, losing it is no error
            self._pending.clear()
            self._paused_until = self._clock() + _PAUSE_SECONDS
            self._log(exc)
        finally:
            # At once: what is published before the task's callbacks run would otherwise wait for a
            # publisher that has ended.
            self._publishers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _log(self, failure: Exception | str | None) -> None:
        """Log a failure; as a warning only if it is the first one after a success."""
        if failure is not None:
            level = logging.DEBUG if self._has_failed else logging.WARNING
            message = "readers are not woken and have to poll: %s"
            _logger.log(level, message, failure, exc_info=unexpected(failure))
        self._has_failed = failure is not None
