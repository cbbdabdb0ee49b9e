"""Notices a backend that promises each record once and in order, and delivers them otherwise.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from streamq._errors import DriverError, StreamqError, TrimmedError
from streamq._events import StreamId
from streamq.calling._breach import breach
from streamq.driver import ChunkQueue
from streamq.records._wire import Record

from ._sequencer import Sequencer

_MOST_PAGES = 3  # one record may be read again by a reader that resumes in the middle of it


class Repeats:
    """Judges each page of records after a reader has fed them to its sequencer.

    Where a backend fences, no record is stored twice, and nothing stale is stored at all.

    Args:
        queue: Where the pages come from.
        stream: Which stream.
        sequencer: Counts what it drops.
    """

    def __init__(self, queue: ChunkQueue, stream: StreamId, sequencer: Sequencer) -> None:
        self._queue = queue
        self._stream = stream
        self._sequencer = sequencer
        self._is_promised = queue.capabilities.fenced and queue.capabilities.replay
        self._dropped = 0  # records, and events that were missing
        self._epoch, self._offset, self._held_bytes = sequencer.epoch, sequencer.offset, 0
        self._pages = 0

    def judge(
        self, page: Sequence[Record | StreamqError], failure: StreamqError | None
    ) -> DriverError | None:
        """Return the error of the driver that returned this page, if it shows one.

        Args:
            page: The records that were fed.
            failure: The error that the sequencer raised, if it did.
        """
        sequencer = self._sequencer
        dropped = sequencer.duplicate_records + sequencer.stale_records + sequencer.gaps
        has_moved = sequencer.offset != self._offset or sequencer.epoch != self._epoch
        if has_moved and dropped == self._dropped and failure is None:
            self._offset, self._epoch = sequencer.offset, sequencer.epoch
            self._pages = 0
            return None
        if not self._is_promised:
            return None
        more, self._dropped = dropped - self._dropped, dropped
        held, self._held_bytes = self._held_bytes, sequencer.held_bytes
        self._offset, self._epoch = sequencer.offset, sequencer.epoch
        if (more or isinstance(failure, TrimmedError)) and self._queue.capabilities.ordered:
            records = [record for record in page if isinstance(record, Record)]
            places = [(record.epoch, record.offset, record.part) for record in records]
            if any(second < first for first, second in pairwise(places)):
                return self._breach("returned records in another order than they were appended in")
        is_repeated = not has_moved and failure is None and self._held_bytes == held
        self._pages = self._pages + 1 if is_repeated else 0
        if self._pages < _MOST_PAGES:
            return None
        return self._breach("returned records that it had returned before, page after page")

    def _breach(self, what: str) -> DriverError:
        return breach(
            f"read() {what}", "ChunkQueue.read", backend=self._queue.backend, stream=self._stream
        )
