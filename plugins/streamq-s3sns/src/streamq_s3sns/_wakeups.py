"""Notifications that wake readers: an SNS topic, and a queue of SQS for each process that waits.

They are a hint and nothing else. One that is lost, late, repeated, out of order or made up causes a
look at S3 more or less; what is read, is read there.

The queue is created when the first reader of the process waits, and removed when the streamq queue
is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import cast

from streamq.driver import StreamqError
from streamq_aws import AwsClients, aws_errors

from ._mailbox import Mailbox, scope_attribute
from ._orphans import Orphans
from ._segment import BACKEND
from ._services import Services

_logger = logging.getLogger("streamq.s3sns")

_ALIVE_SECONDS = 600.0
_BATCH = 10
_AT_ONCE = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0

Wake = Callable[[str, int], None]


class WakeUps:
    """The notifications of one queue: publishes its own, and hears everybody's.

    Args:
        clients: Makes clients of SNS and SQS.
        topic_arn: The topic.
        scope: Only notifications of the same scope are heard: bucket and prefix.
        wake: Called with the directory of a stream and the number of its new segment.
    """

    def __init__(self, clients: AwsClients, topic_arn: str, scope: str, wake: Wake) -> None:
        self._services = Services(clients)
        self._topic = topic_arn
        self._scope = scope
        self._wake = wake
        self._mailbox = Mailbox(self._services, topic_arn, scope)
        self._pending: dict[str, int] = {}
        self._publishers: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self._failed_until = 0.0
        self._has_failed = False
        self._clock = asyncio.get_running_loop().time
        self._alive_until = self._clock() + _ALIVE_SECONDS
        self.is_listening = False
        """Whether notifications are being heard now."""

    def publish(self, directory: str, number: int) -> None:
        """Tell everybody of a new segment, soon. Never fails, never waits."""
        self._pending[directory] = number  # in its place, if the stream is waiting already
        busy = len(self._publishers)
        is_wanted = not busy or (busy < _AT_ONCE and len(self._pending) >= _BATCH)
        if is_wanted and self._clock() >= self._failed_until:
            task = asyncio.create_task(self._publish(), name="streamq-s3sns-publisher")
            self._publishers.add(task)

    def listen(self) -> None:
        """Begin to hear notifications, soon. Never fails, never waits."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="streamq-s3sns-listener")

    async def aclose(self, patience_seconds: float) -> None:
        """Send what is pending and remove our queue, as far as that takes no longer than this."""
        listener, publishers = self._listener, set(self._publishers)
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            self.is_listening = False
        if publishers:
            await asyncio.wait(publishers, timeout=patience_seconds)
            for publisher in publishers:
                publisher.cancel()
            await asyncio.gather(*publishers, return_exceptions=True)
        with contextlib.suppress(StreamqError, TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._mailbox.remove()

    async def sweep(self) -> int:
        """Remove what processes left that ended without doing it; return how many."""
        return await Orphans(self._services, self._topic).remove()

    # -- publishing ----------------------------------------------------------------------------

    async def _publish(self) -> None:
        try:
            while self._pending:
                # Who has waited longest comes first, so that busy streams starve nobody.
                some = list(itertools.islice(self._pending.items(), _BATCH))
                for directory, _ in some:
                    del self._pending[directory]
                with aws_errors(BACKEND, about=f"topic {self._topic}"):
                    sns = await self._services.client("sns")
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
                self._tell_of(failed[0].get("Code", "refused") if failed else None)
        except Exception as exc:  # noqa: BLE001 - a hint that is not given is no error
            self._pending.clear()
            self._failed_until = self._clock() + _FIRST_PAUSE
            self._tell_of(exc)
        finally:
            # At once: what is published before its callbacks run would wait for a publisher that
            # has ended.
            self._publishers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _tell_of(self, failure: Exception | str | None) -> None:
        """Log a failure, at large only the first one after a success."""
        if failure is not None:
            level = logging.DEBUG if self._has_failed else logging.WARNING
            message = "readers are not woken and have to poll: %s"
            _logger.log(level, message, failure, exc_info=_unforeseen(failure))
        self._has_failed = failure is not None

    # -- hearing -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._mailbox.open()
                self.is_listening = True
                await self._hear()
                pause = _FIRST_PAUSE
            except Exception as exc:
                self.is_listening = False
                level = logging.WARNING if pause == _FIRST_PAUSE else logging.DEBUG
                message = "no notifications for now, readers poll: %s"
                _logger.log(level, message, exc, exc_info=_unforeseen(exc))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _hear(self) -> None:
        for message in await self._mailbox.receive():
            number, _, directory = message.partition(" ")
            if number.isascii() and number.isdigit() and len(number) <= 12:
                self._wake(directory, int(number))
        if self._clock() >= self._alive_until:
            await self._mailbox.say_alive()
            self._alive_until = self._clock() + _ALIVE_SECONDS


def _unforeseen(failure: Exception | str) -> Exception | None:
    """Return what deserves a traceback in the log: an exception that is not one of streamq's."""
    return None if isinstance(failure, StreamqError | str) else failure
