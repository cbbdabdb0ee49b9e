"""Makes the calls of the contract except reading, each of which checks the driver's answer.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq.driver import ChunkQueue, Entry, StreamAppend, StreamInfo
from streamq.records._wire import MAX_EPOCH

from ._answers import check_info, is_count
from ._breach import breach, is_permitted, shown, unexpected

_CLOSING_SECONDS = 30.0
_REMEMBERED_NAMES = 100_000


async def append(
    queue: ChunkQueue, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
) -> None:
    """Call :meth:`ChunkQueue.append`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    try:
        await queue.append(stream, entries, ttl=ttl)
    except BaseException as exc:
        if isinstance(exc, StreamNotFoundError) and queue.capabilities.fenced:
            raise breach(
                f"append() raised StreamNotFoundError: {exc}, although it creates the stream",
                "ChunkQueue.append",
                backend=queue.backend,
                stream=stream,
            ) from exc
        if is_permitted(exc):
            raise
        raise unexpected(
            exc, "ChunkQueue.append", backend=queue.backend, of=type(queue), stream=stream
        ) from exc


def has_append_many(queue: ChunkQueue) -> bool:
    """Whether the driver implements :meth:`ChunkQueue.append_many`."""
    return type(queue).append_many is not ChunkQueue.append_many


async def append_many(
    queue: ChunkQueue, appends: Sequence[StreamAppend]
) -> Sequence[StreamqError | None]:
    """Call :meth:`ChunkQueue.append_many`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    outcomes: Sequence[StreamqError | None] = await _called(queue, "append_many", None, appends)
    problem = ""
    if not isinstance(outcomes, Sequence) or len(outcomes) != len(appends):
        problem = f"append_many() returned {shown(outcomes)} for {len(appends)} appends"
    for outcome in () if problem else outcomes:
        if outcome is None:
            continue
        if not isinstance(outcome, StreamqError):
            problem = f"append_many() returned {shown(outcome)}, neither None nor a StreamqError"
        elif isinstance(outcome, StreamNotFoundError) and queue.capabilities.fenced:
            problem = f"append_many() returned StreamNotFoundError: {outcome}"
    if problem:
        raise breach(problem, "ChunkQueue.append_many", backend=queue.backend)
    return outcomes


async def describe(queue: ChunkQueue, stream: StreamId, *, last: int = 0) -> StreamInfo:
    """Call :meth:`ChunkQueue.describe`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    info: StreamInfo = await _called(queue, "describe", stream, stream, last=last)
    call = f"describe(last={last})" if last else "describe()"
    check_info(info, call, queue, stream, last=last)
    if last and not info.last and queue.capabilities.replay:
        raise breach(
            f"{call} returned no record of stream {stream}, although it exists (unless something "
            "else than streamq has removed the records: then delete the stream to begin again)",
            "ChunkQueue.describe",
            backend=queue.backend,
            stream=stream,
        )
    return info


async def delete(queue: ChunkQueue, stream: StreamId) -> None:
    """Call :meth:`ChunkQueue.delete`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    await _called(queue, "delete", stream, stream)


async def commit(queue: ChunkQueue, stream: StreamId, upto: str) -> None:
    """Call :meth:`ChunkQueue.commit`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    await _called(queue, "commit", stream, stream, upto)


async def release(queue: ChunkQueue, stream: StreamId, after: str) -> None:
    """Call :meth:`ChunkQueue.release`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    await _called(queue, "release", stream, stream, after)


async def known_epoch(queue: ChunkQueue, stream: StreamId) -> int:
    """Call :meth:`ChunkQueue.newest_epoch`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    epoch = await _called(queue, "newest_epoch", stream, stream)
    if is_count(epoch, most=MAX_EPOCH):
        return int(epoch)
    raise breach(
        f"newest_epoch() returned {shown(epoch)}, not a number from 0 to 2**63-1",
        "ChunkQueue.newest_epoch",
        backend=queue.backend,
        stream=stream,
    )


async def sweep(queue: ChunkQueue) -> int:
    """Call :meth:`ChunkQueue.sweep`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    swept = await _called(queue, "sweep", None)
    if not is_count(swept):
        raise breach(
            f"sweep() returned {shown(swept)}, not how many streams were removed",
            "ChunkQueue.sweep",
            backend=queue.backend,
        )
    return int(swept)


async def close(queue: ChunkQueue) -> None:
    """Call :meth:`ChunkQueue.aclose`, which has to end within half a minute.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    try:
        async with asyncio.timeout(_CLOSING_SECONDS) as patience:
            await _called(queue, "aclose", None)
    except TimeoutError:
        if not patience.expired():
            raise
        raise breach(
            f"aclose() has not ended for {_CLOSING_SECONDS:g} s",
            "ChunkQueue.aclose",
            backend=queue.backend,
        ) from None


async def streams(
    queue: ChunkQueue, tenant: str, prefix: str = ""
) -> AsyncGenerator[StreamInfo, None]:
    """Iterate as :meth:`ChunkQueue.streams` does.

    To be closed (``contextlib.aclosing``) by who leaves it early.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    infos = _listing(queue, tenant, prefix)
    names: set[str] = set()
    try:
        while True:
            try:
                info = await anext(infos)
            except StopAsyncIteration:
                return
            except BaseException as exc:
                if is_permitted(exc):
                    raise
                raise unexpected(
                    exc, "ChunkQueue.streams", backend=queue.backend, of=type(queue)
                ) from exc
            _check_listed(info, queue, tenant, prefix, names)
            yield info
    finally:
        if isinstance(infos, AsyncGenerator):
            await infos.aclose()


def _listing(queue: ChunkQueue, tenant: str, prefix: str) -> AsyncIterator[StreamInfo]:
    try:
        infos = queue.streams(tenant, prefix)
        if isinstance(infos, AsyncIterable):
            return aiter(infos)
    except Exception as exc:
        if is_permitted(exc):
            raise
        raise unexpected(exc, "ChunkQueue.streams", backend=queue.backend, of=type(queue)) from exc
    if inspect.iscoroutine(infos):  # of an ``async def`` that yields nothing
        infos.close()
    raise breach(
        f"streams() returned {shown(infos)}, not an asynchronous iterator",
        "ChunkQueue.streams",
        backend=queue.backend,
    )


def _check_listed(
    info: StreamInfo, queue: ChunkQueue, tenant: str, prefix: str, names: set[str]
) -> None:
    """Check one stream of a listing, and remember its name."""
    stream = info.stream if isinstance(info, StreamInfo) else None
    problem = ""
    if not isinstance(stream, StreamId):
        problem = f"streams() yielded {shown(info)}, not the StreamInfo of a stream"
    elif stream.tenant != tenant or not stream.name.startswith(prefix):
        problem = f"streams({tenant!r}, {prefix!r}) yielded {stream}, which it was not asked for"
    elif stream.name in names:
        problem = f"streams() yielded stream {stream} twice"
    if problem or stream is None:
        raise breach(problem, "ChunkQueue.streams", backend=queue.backend)
    check_info(info, "streams()", queue, stream, last=sys.maxsize)
    if len(names) < _REMEMBERED_NAMES:  # a bound on memory
        names.add(stream.name)


async def _called(
    queue: ChunkQueue, method: str, stream: StreamId | None, *args: object, **options: object
) -> Any:
    try:
        return await getattr(queue, method)(*args, **options)
    except BaseException as exc:
        if is_permitted(exc):
            raise
        raise unexpected(
            exc, f"ChunkQueue.{method}", backend=queue.backend, of=type(queue), stream=stream
        ) from exc
