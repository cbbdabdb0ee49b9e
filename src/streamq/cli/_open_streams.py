"""Warns that producers may still write the streams that a command deletes.

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from streamq._errors import CapabilityError, CorruptRecordError, StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.opening._open import describe

from ._terminal import show_warning

_MOST_ASKED = 500
_AT_ONCE = 8


async def count_open(queue: ChunkQueue, streams: Sequence[StreamId], settings: Settings) -> int:
    """Return how many of the first 500 streams have not ended; others cost a request each.

    A stream that cannot be read, or does not exist any more, is not counted.

    Raises:
        StreamqError: The backend cannot be queried.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def is_open(stream: StreamId) -> bool:
        async with turns:
            with contextlib.suppress(CapabilityError, CorruptRecordError, StreamNotFoundError):
                return (await describe(stream, queue=queue, settings=settings)).seal is None
        return False

    return sum(await asyncio.gather(*(is_open(each) for each in streams[:_MOST_ASKED])))


def warn_before(number: int) -> None:
    """Say, if any are open, what comes of deleting them while their producers run."""
    if number:
        show_warning(
            f"{number} of them {_is(number)} OPEN: a producer that still runs is not stopped, and "
            "its next append brings its stream back without the beginning; stop it first"
        )


def warn_after(number: int) -> None:
    """Say, if any were open, how to see whether they come back."""
    if number:
        show_warning(
            f"{number} of them {'was' if number == 1 else 'were'} OPEN: `streamq ls` shows "
            "whether a producer has written again; then stop it, and delete once more"
        )


def counted(number: int) -> str:
    """Return a number of streams in words."""
    return f"{number} stream{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
