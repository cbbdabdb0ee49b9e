"""Represents what was recorded: the events of a stream, and how each attempt of an activity ended.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from streamq._errors import error_text
from streamq._events import Chunk, Event, EventOrGap, Gap, Reset, Seal, SealState, StreamId

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)

_SHOWN = 20
_SHOWN_CHARS = 80


def outline(events: Sequence[EventOrGap[Any]]) -> list[Any]:
    """Return events in short, to compare with a list: what a person would write down of a stream.

    A chunk is its value; a reset is ``"RESET 2"``, with the attempt that begins; a gap is
    ``"GAP 3-5"``; an ending is ``"END"``, ``"CANCELLED"`` or ``"ERROR ValueError: no model"``.
    """
    return [_shown(each) for each in events]


def _shown(event: EventOrGap[Any]) -> Any:
    if isinstance(event, Chunk):
        return event.value
    if isinstance(event, Reset):
        return f"RESET {event.attempt}"
    if isinstance(event, Gap):
        return f"GAP {event.first}-{event.offset}"
    if event.state is not SealState.ERROR:
        return event.state.name
    return f"ERROR {event.error_type}: {event.message}"


@dataclass(frozen=True, repr=False)
class RecordedStream(Generic[T]):
    """The events of one stream, as every reader gets them.

    Attributes:
        stream: Which stream.
        events: Chunks, resets and the seal, with their offsets.
    """

    stream: StreamId
    events: list[Event[T]]

    @property
    def chunks(self) -> list[T]:
        """The values that count: those after the last reset."""
        values: list[T] = []
        for event in self.events:
            if isinstance(event, Chunk):
                values.append(event.value)
            elif isinstance(event, Reset):
                values.clear()
        return values

    @property
    def text(self) -> str:
        """The values that count, as one text.

        Raises:
            TypeError: A value is no text.
        """
        for value in self.chunks:
            if not isinstance(value, str):
                raise TypeError(f"{value!r} is no text; compare .chunks instead of .text")
        return "".join(str(value) for value in self.chunks)

    @property
    def outline(self) -> list[Any]:
        """All events in short, :func:`outline`."""
        return outline(self.events)

    @property
    def resets(self) -> int:
        """How often the readers had to void what they had."""
        return sum(isinstance(event, Reset) for event in self.events)

    @property
    def seal(self) -> Seal | None:
        """The ending, with its message; ``None`` if the stream is open."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Seal) else None

    @property
    def ending(self) -> SealState | None:
        """How the stream ended; ``None`` if it is open, and waits for the next attempt."""
        return self.seal.state if self.seal is not None else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._story()}>"

    def _story(self) -> str:
        parts = [_brief(event) for event in self.events]
        left = len(parts) - _SHOWN
        if left > 0:
            parts = [*parts[: _SHOWN // 2], f"({left} more)", *parts[-_SHOWN // 2 :]]
        if self.seal is None:
            parts.append("(open)")
        return ", ".join(parts)


def _brief(event: Event[Any]) -> str:
    if not isinstance(event, Chunk):
        return str(_shown(event))
    try:
        shown = repr(event.value)
    except Exception as exc:  # noqa: BLE001 - a value that cannot be decoded, or shown
        shown = f"undecoded ({type(exc).__name__})"
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."


@dataclass(frozen=True)
class RecordedAttempt(Generic[T, R]):
    """How one attempt went.

    Attributes:
        number: Its number, as in ``activity.info().attempt``.
        sent: The values that it sent to its main stream, also those that readers get from an
            earlier attempt, or do not get.
        resumed_from: How many chunks of earlier attempts it continued after.
        error: The exception that left the function, or that streamq raised around it.
        failure: What Temporal records; ``None`` if the attempt completed.
        heartbeats: The details of each heartbeat that the function sent.
        is_retried: Whether Temporal runs another attempt.
        value: The result, as the workflow gets it.
    """

    number: int
    sent: list[T]
    resumed_from: int
    error: BaseException | None
    failure: BaseException | None
    heartbeats: list[tuple[Any, ...]]
    is_retried: bool
    value: R | None = field(repr=False)

    @property
    def has_completed(self) -> bool:
        """Whether it returned, and Temporal recorded its result."""
        return self.failure is None


@dataclass(frozen=True, repr=False)
class Recorded(RecordedStream[T], Generic[T, R]):
    """The main stream of an activity, and how its attempts ended.

    Attributes:
        attempts: The attempts that were run, in order.
        streams: Every stream of the activity, by the name of the writer's parameter; the main one
            is ``"stream"``.
    """

    attempts: list[RecordedAttempt[T, R]]
    streams: Mapping[str, RecordedStream[Any]]

    @property
    def result(self) -> R:
        """The activity's result, as the workflow gets it.

        Raises:
            AssertionError: The last attempt did not complete; the cause is its error.
        """
        last = self._last
        if last.failure is not None:
            raise AssertionError(
                f"attempt {last.number} has no result: {_named(last.error or last.failure)}"
            ) from (last.error or last.failure)
        return cast(R, last.value)  # None is a result like any other

    @property
    def error(self) -> BaseException | None:
        """The exception that left the function in the last attempt, as it was raised."""
        return self._last.error

    @property
    def failure(self) -> BaseException | None:
        """What Temporal records of the last attempt, if that is no result."""
        return self._last.failure

    @property
    def is_retried(self) -> bool:
        """Whether Temporal runs another attempt after the last one."""
        return self._last.is_retried

    @property
    def sent(self) -> list[T]:
        """The values that the last attempt sent to the main stream."""
        return self._last.sent

    @property
    def heartbeats(self) -> list[tuple[Any, ...]]:
        """The details of each heartbeat that the function sent in the last attempt."""
        return self._last.heartbeats

    @property
    def _last(self) -> RecordedAttempt[T, R]:
        return self.attempts[-1]

    def _story(self) -> str:
        last = self._last
        if last.has_completed:
            outcome = f"result {last.value!r}"
        else:
            outcome = _named(last.error or last.failure or Exception())
        return f"{super()._story()}; attempt {last.number}: {outcome}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"
