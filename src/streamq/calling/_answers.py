"""Examines what a driver returns, before anything else relies on it.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from streamq._events import StreamId
from streamq.driver import ChunkQueue, Stored, StreamInfo

from ._breach import breach, shown

_MAX_COUNT = 2**62


def check_records(
    found: Sequence[Stored], call: str, queue: ChunkQueue, stream: StreamId
) -> list[bytes]:
    """Return the data of records, all of which have to be records.

    On the path of every event that is read: it does its work in a few passes without a loop.

    Raises:
        DriverError: Something else is among them.
    """
    try:
        data = [stored.data for stored in found]
        positions = [stored.position for stored in found]
    except (AttributeError, TypeError):
        kind = type(found).__name__
        if isinstance(found, Sequence):
            kind += f" with {shown(next(each for each in found if not _is_stored(each)))}"
        problem = f"{call} returned {kind}, not a sequence of Stored"
    else:
        if set(map(type, data)) <= {bytes} and set(map(type, positions)) <= {str}:
            return data
        if all(map(_is_stored, found)):  # subclasses
            return data
        wrong = next(each for each in found if not _is_stored(each))
        if isinstance(wrong.data, bytes):
            problem = f"{call} returned a record whose position is {shown(wrong.position)}, no text"
        else:
            problem = f"{call} returned a record whose data is {shown(wrong.data)}, no bytes"
    see = f"ChunkQueue.{call.partition('(')[0]}"
    raise breach(problem, see, backend=queue.backend, stream=stream)


def check_record(stored: Stored, call: str, queue: ChunkQueue, stream: StreamId) -> None:
    """Check a single record, as :func:`check_records` does.

    Raises:
        DriverError: It is something else.
    """
    if (
        type(stored) is not Stored
        or type(stored.data) is not bytes
        or type(stored.position) is not str
    ):
        check_records([stored], call, queue, stream)


def _is_stored(each: object) -> bool:
    return isinstance(getattr(each, "data", None), bytes) and isinstance(
        getattr(each, "position", None), str
    )


def check_read(
    found: Sequence[Stored],
    queue: ChunkQueue,
    stream: StreamId,
    after: str,
    *,
    max_records: int,
    max_bytes: int,
) -> None:
    """Check the answer of :meth:`ChunkQueue.read`.

    Raises:
        DriverError: It breaks the contract.
    """
    if type(found) is not list and not isinstance(found, Sequence):
        problem = f"read() returned {shown(found)}, not a sequence of Stored"
        raise breach(problem, "ChunkQueue.read", backend=queue.backend, stream=stream)
    if not found:
        return
    count = len(found)
    problem = ""
    if count == 1:  # mostly, while a stream is live
        check_record(found[0], "read()", queue, stream)
    elif count > max_records:
        problem = f"read(max_records={max_records}) returned {count} records"
    elif (size := sum(map(len, check_records(found, "read()", queue, stream)))) > max_bytes:
        problem = f"read(max_bytes={max_bytes}) returned {count} records of {size} bytes"
    if not problem:
        last = found[-1].position
        if last == after and queue.capabilities.replay:
            problem = (
                f"read(after={after!r}) returned {count} records and the same position after them, "
                "so that reading would never get any further"
            )
        elif not last.isprintable():
            problem = f"read() returned the position {last!r}, which cannot be printed"
    if problem:
        raise breach(problem, "ChunkQueue.read", backend=queue.backend, stream=stream)


def check_info(
    info: StreamInfo, call: str, queue: ChunkQueue, stream: StreamId, *, last: int
) -> None:
    """Check a description of a stream.

    Args:
        info: What the driver returned.
        call: The call that returned it, for the message.
        queue: The queue.
        stream: The stream that it should describe.
        last: The most records that it may have.

    Raises:
        DriverError: It breaks the contract.
    """
    problem = ""
    if not isinstance(info, StreamInfo):
        problem = f"{call} returned {shown(info)}, not a StreamInfo"
    elif info.stream != stream:
        problem = f"{call} for stream {stream} described {shown(info.stream)}"
    elif not isinstance(info.last, Sequence):
        problem = f"{call} returned last={shown(info.last)}, not a tuple of Stored"
    elif len(info.last) > last:
        problem = f"{call} returned {len(info.last)} records, more than {last}"
    elif info.expires_in is not None and not isinstance(info.expires_in, timedelta):
        problem = f"{call} returned expires_in={shown(info.expires_in)}, not a timedelta"
    elif info.expires_in is not None and info.expires_in < timedelta():
        problem = f"{call} returned expires_in={info.expires_in!s}, less than 0"
    else:
        for name in ("records", "size_bytes", "attempts"):
            value = getattr(info, name)
            if value is not None and not is_count(value):
                problem = f"{call} returned {name}={shown(value)}, which counts nothing"
    if problem:
        see = f"ChunkQueue.{call.partition('(')[0]} and StreamInfo"
        raise breach(problem, see, backend=queue.backend, stream=stream)
    if info.last:
        check_records(info.last, call, queue, stream)


def is_count(value: object, *, most: int = _MAX_COUNT) -> bool:
    """Whether something is a number of things that could exist."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
