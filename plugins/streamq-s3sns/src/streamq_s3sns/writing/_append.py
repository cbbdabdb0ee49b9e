"""Decides the requests of one append: the writer that wins the next segment number has the stream.

An append is one conditional write. If the end of the stream is not known from the append before, a
listing comes first. Two attempts that write at once request the same number, and S3 gives it to one
of them. The loser reads the checkpoint in the segment that won. If its epoch is newer, the loser
stops. If its epoch is older, the loser continues with the next number. If the segment is the
loser's own, only the answer to its write was lost, and the append has succeeded.

These rules alone would not be fair. A busy writer needs one request for each number, a newcomer
needs two. A stale attempt could therefore keep its successor out for as long as it has something to
write. A writer that loses a race against an older epoch therefore announces its epoch in an object
next to the segments. A busy writer checks for such an announcement on every fourth append. A newer
epoch than its own stops it.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from streamq.driver import BackendUnavailableError, Entry, FencedError, StreamId, new_entries
from streamq_s3sns._errors import BACKEND
from streamq_s3sns._segment import FRAME_BYTES, Checkpoint

SEGMENT_BYTES = 8 * 2**20
"""A segment is closed before it gets larger than this, unless it has one entry."""

PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class FindEnd:
    """Find the newest segment by a listing; report its checkpoint by :meth:`Append.found_end`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Store a segment if its number is free; report the result by :meth:`Append.wrote`.

    Attributes:
        checkpoint: State of the stream after the segment.
        entries: Its entries.
    """

    checkpoint: Checkpoint
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ReadWinner:
    """Read the checkpoint in the segment that won; report it by :meth:`Append.read_winner`."""

    number: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Store the announcement of an epoch; report that by :meth:`Append.announced`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for :data:`PAUSE_SECONDS`; report that by :meth:`Append.paused`."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Delete the announcement; report that by :meth:`Append.withdrew`."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The entries are stored.

    Attributes:
        checkpoint: State of the stream, also if nothing had to be stored: if an answer was lost, no
            notification has been sent for what was stored.
    """

    checkpoint: Checkpoint


Step: TypeAlias = FindEnd | Write | ReadWinner | Announce | Pause | Withdraw | Appended


class Append:
    """One append, as a pure state machine: no clock, no I/O.

    :attr:`step` is what to do next. Its result is reported by the method that the step names, which
    sets the next step. The last step is :class:`Appended`.

    An append whose request fails is abandoned, and repeated by a new machine. That one finds what
    the first one has stored.

    Args:
        stream: The stream, for messages.
        entries: What to append, as :meth:`streamq.driver.ChunkQueue.append`; not empty.
        ttl_ms: Time to live after a segment that is not the last one.
        last_ttl_ms: Time to live after the last segment.
        remembered: State of the stream after the last append of this queue, which may be out of
            date; ``None`` if it is not known.
        rival: Largest epoch that is known to have been announced.
        now_ms: The server's time.

    Raises:
        FencedError: A newer epoch has been announced.
    """

    __slots__ = (
        *("_base", "_entries", "_is_announced", "_last_ttl_ms", "_losses", "_result", "_stream"),
        *("_ttl_ms", "_unwritten", "_winner", "step"),
    )

    step: Step

    def __init__(
        self,
        stream: StreamId,
        entries: Sequence[Entry],
        *,
        ttl_ms: int,
        last_ttl_ms: int,
        remembered: Checkpoint | None,
        rival: int,
        now_ms: int,
    ) -> None:
        self._stream = stream
        self._entries = tuple(entries)
        self._ttl_ms = ttl_ms
        self._last_ttl_ms = last_ttl_ms
        self._losses = 0
        self._is_announced = False
        self._base = Checkpoint()
        self._winner: Checkpoint | None = None
        self._unwritten: tuple[tuple[Entry, ...], ...] = ()
        self._result = Checkpoint()
        if rival > self._epoch:
            raise FencedError(
                f"epoch {rival} is taking stream {stream} over; epoch {self._epoch} must stop",
                backend=BACKEND,
                stream=str(stream),
            )
        self.step = FindEnd()
        if remembered is not None:
            self._try_remembered(remembered, now_ms)

    # -- results of steps ----------------------------------------------------------------------

    def found_end(self, newest: Checkpoint | None, now_ms: int) -> None:
        """Report the newest checkpoint, expired or not; ``None`` if there is no segment.

        Raises:
            FencedError: A newer epoch has the stream.
        """
        self._plan(newest or Checkpoint(), now_ms)

    def wrote(self, is_won: bool, now_ms: int, *, has_time: bool = True) -> None:
        """Report whether the segment was stored.

        Args:
            is_won: Whether it was; otherwise its number is taken.
            now_ms: The server's time.
            has_time: Whether there is time for another attempt.

        Raises:
            BackendUnavailableError: The number is taken, and there is no time.
        """
        assert isinstance(self.step, Write)
        if is_won:
            if self._unwritten:
                self._write_next(self.step.checkpoint, now_ms)
            else:
                self._finish(self.step.checkpoint)
            return
        self._losses += 1
        if not has_time:
            raise BackendUnavailableError(
                f"stream {self._stream} is being appended to by others: this writer has lost "
                f"{self._losses} races for the next segment",
                backend=BACKEND,
                stream=str(self._stream),
            )
        self.step = ReadWinner(self._base.number + 1)

    def read_winner(self, winner: Checkpoint | None, now_ms: int) -> None:
        """Report the checkpoint in the segment that won; ``None`` if there is no such segment.

        The latter happens while S3 is busy with a deletion of the same key.

        Raises:
            FencedError: A newer epoch has the stream.
        """
        self._winner = winner
        if winner is not None and winner.epoch < self._epoch and not self._is_announced:
            self.step = Announce(self._epoch)
        elif self._losses > 1:
            self.step = Pause()
        else:
            self._try_again(now_ms)

    def announced(self, now_ms: int) -> None:
        """Report that the announcement is stored."""
        self._is_announced = True
        self._try_again(now_ms)

    def paused(self, now_ms: int) -> None:
        """Report that the pause has ended.

        Raises:
            FencedError: A newer epoch has the stream.
        """
        self._try_again(now_ms)

    def withdrew(self) -> None:
        """Report that the announcement is deleted."""
        self.step = Appended(self._result)

    # -- decisions -----------------------------------------------------------------------------

    @property
    def _epoch(self) -> int:
        return self._entries[-1].epoch

    def _try_remembered(self, remembered: Checkpoint, now_ms: int) -> None:
        """Write after a checkpoint that may be out of date: losing the race would show that.

        Nothing else is decided from memory: an append is neither refused, nor found to be stored,
        nor does it begin a new stream.
        """
        if _is_expired(remembered, now_ms):
            return
        try:
            fresh = self._fresh(remembered)
        except FencedError:
            return
        if fresh:
            self._write(remembered, fresh, now_ms)

    def _try_again(self, now_ms: int) -> None:
        if self._winner is None:
            self.step = FindEnd()
        else:
            self._plan(self._winner, now_ms)

    def _plan(self, newest: Checkpoint, now_ms: int) -> None:
        """Write after the newest segment, unless everything is stored already."""
        base = newest
        if _is_expired(newest, now_ms):
            # A new stream of the same name. It continues the numbers of the expired one.
            base = Checkpoint(number=newest.number, begin=newest.number + 1)
        fresh = self._fresh(base)
        if fresh or base.ttl != self._last_ttl_ms:
            self._write(base, fresh, now_ms)
        else:
            self._finish(base)

    def _fresh(self, base: Checkpoint) -> list[Entry]:
        return new_entries(self._entries, base.newest, backend=BACKEND, stream=self._stream)

    def _write(self, base: Checkpoint, fresh: Sequence[Entry], now_ms: int) -> None:
        self._base = base
        self._unwritten = tuple(_groups(fresh))
        self._write_next(base, now_ms)

    def _write_next(self, base: Checkpoint, now_ms: int) -> None:
        group, *others = self._unwritten
        self._unwritten = tuple(others)
        ttl_ms = self._ttl_ms if others else self._last_ttl_ms
        self.step = Write(_next(base, group, ttl_ms, now_ms), group)

    def _finish(self, checkpoint: Checkpoint) -> None:
        self._result = checkpoint
        self.step = Withdraw() if self._is_announced else Appended(checkpoint)


def _is_expired(checkpoint: Checkpoint, now_ms: int) -> bool:
    return checkpoint.number > 0 and checkpoint.expires <= now_ms


def _next(base: Checkpoint, entries: Sequence[Entry], ttl_ms: int, now_ms: int) -> Checkpoint:
    """Return the checkpoint after a segment with these entries."""
    newest = (entries[-1].epoch, entries[-1].index) if entries else base.newest
    return replace(
        base,
        number=base.number + 1,
        epoch=newest[0],
        index=newest[1],
        expires=now_ms + ttl_ms,
        ttl=ttl_ms,
        records=base.records + len(entries),
        size=base.size + sum(len(entry.data) for entry in entries),
    )


def _groups(entries: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Cut entries into segments; without any, one empty segment sets a new time to live."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        size += FRAME_BYTES + len(entry.data)
        if group and size > SEGMENT_BYTES:
            yield tuple(group)
            group, size = [], FRAME_BYTES + len(entry.data)
        group.append(entry)
    yield tuple(group)
