"""Copes with backends that do not give records out in their order.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.records._wire import Record

from ._sequencer import Sequencer


class Disorder:
    """What a reader does about records that come too late or too early.

    Args:
        queue: The backend.
        stream: The stream.
        sequencer: Holds early records back.
        retry: How calls are retried.
        clock: Returns the seconds of the event loop.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        sequencer: Sequencer,
        retry: RetryPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._stream = stream
        self._sequencer = sequencer
        self._retry = retry
        self._clock = clock
        self._hole_until: float | None = None

    def pause(self) -> float:
        """Return how many seconds to pause, because a missing record may be hidden from us.

        Records taken by a reader that died stay hidden for a time-out. When half of the room for
        records after them is used, reading pauses that long before they can count as lost.
        """
        if not self._sequencer.is_half_full:
            self._hole_until = None
            return 0.0
        now = self._clock()
        if self._hole_until is None:
            self._hole_until = now + self._queue.hidden_seconds
        return self._hole_until - now

    async def judge_seals(self, records: Sequence[Record | StreamqError]) -> None:
        """Learn the newest epoch before a seal is delivered that may be of an older attempt.

        Where the backend neither fences nor keeps order, such a seal may come before the opening of
        the newer attempt, which was stored first. It would end the stream for its only reader.

        Raises:
            StreamqError: The backend cannot be asked. The records can be read again.
        """
        capabilities = self._queue.capabilities
        if capabilities.ordered or capabilities.fenced:
            return
        seals = any(isinstance(each, Record) and each.seal is not None for each in records)
        if seals or self._sequencer.holds_seal:
            self._sequencer.newest_epoch = await self._retry.run(
                lambda: calling.known_epoch(self._queue, self._stream)
            )
