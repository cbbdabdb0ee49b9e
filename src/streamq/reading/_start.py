"""Finds the place at which a reader begins.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import contextlib

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue

from ._cursor import Cursor
from ._tail import read_latest, read_tail

_NAMED_PLACES = ("beginning", "last", "tail")


def given_cursor(from_: str, stream: StreamId) -> Cursor:
    """Return the cursor that a caller gave, or the beginning where it named a place.

    Raises:
        CursorError: It is malformed or belongs to another stream.
    """
    return Cursor() if from_ in _NAMED_PLACES else Cursor.decode(from_, stream)


async def start_cursor(
    queue: ChunkQueue,
    stream: StreamId,
    from_: str,
    retry: RetryPolicy,
    *,
    given: Cursor,
    must_exist: bool,
) -> Cursor:
    """Return where a reader begins: the cursor that it gave, or the place that it named.

    Args:
        queue: Where to read.
        stream: The stream.
        from_: A named place, or the cursor as text.
        retry: How calls are retried.
        given: What :func:`given_cursor` returned for ``from_``.
        must_exist: Whether a stream that does not exist is an error.

    Raises:
        StreamNotFoundError: ``must_exist`` and it does not.
        StreamqError: The backend cannot be queried, or cannot tell where the stream ends.
    """
    if must_exist:
        await retry.run(lambda: calling.describe(queue, stream))
    with contextlib.suppress(StreamNotFoundError):  # all of it is still to come
        if from_ == "tail":
            return (await read_tail(queue, stream, retry)).cursor
        if from_ == "last":
            return await read_latest(queue, stream, retry)
    return given
