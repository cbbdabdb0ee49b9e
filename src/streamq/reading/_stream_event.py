"""Names the stream of each event, where many streams are read in one iteration.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from streamq._errors import StreamqError
from streamq._events import Chunk, GapT, Reset, Seal, StreamId
from streamq.records._values import TCo


@dataclass(frozen=True, slots=True)
class StreamFound:
    """A prefix has found a stream, whose events follow.

    Attributes:
        is_new: Whether it began after the reading began; it is then read from its beginning.
    """

    is_new: bool


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A stream can be read no further; the others go on.

    Attributes:
        error: Why, as the reader of this stream alone would have raised it.
    """

    error: StreamqError


@dataclass(frozen=True, slots=True)
class StreamEvent(Generic[TCo, GapT]):
    """An event of one of many streams.

    Attributes:
        stream: Which stream.
        event: What its reader delivers; or :class:`StreamFound` before its first event, if a prefix
            has found it; or :class:`ReadFailure` after its last one, if reading failed.
    """

    stream: StreamId
    event: Chunk[TCo] | Reset | Seal | GapT | StreamFound | ReadFailure
