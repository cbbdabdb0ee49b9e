"""Drivers that break the contract: each defect ends in an error that names the driver, in time."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from streamq import DriverError, OnRetry, Settings, open_reader, open_writer
from streamq import describe as status_of
from streamq._sweep import Life, SweepRequest, Verdict, sweep
from streamq.driver import ChunkQueue, Stored, StreamId, StreamInfo, StreamNotFoundError

from .broken_driver import (
    AcmeQueue,
    Defect,
    altering,
    listing,
    raising,
    read,
    returning,
    status,
    write,
)

STREAM = StreamId("default", "s")
Use = Callable[[AcmeQueue, Settings], Awaitable[object]]


async def replay(queue: AcmeQueue, settings: Settings) -> None:
    """Open an attempt that compares its chunks with those that are stored."""
    writer = await open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.REPLAY)
    await writer.aclose()


async def read_gaps(queue: AcmeQueue, settings: Settings) -> None:
    """Read to the end, past what is missing."""
    async with open_reader("s", queue=queue, settings=settings, gaps_as_events=True) as reader:
        await reader.collect()


async def read_batches(queue: AcmeQueue, settings: Settings) -> None:
    """Read what is there, as a poll does."""
    async with open_reader("s", queue=queue, settings=settings) as reader:
        while await reader.read_batch(max_wait=0):
            pass


async def consume(queue: AcmeQueue, settings: Settings) -> None:
    """Read what is there, and acknowledge it."""
    writer = await open_writer("t", queue=queue.inner, settings=settings)
    await writer.send_chunk("x")
    await writer.aclose()
    async with open_reader("t", queue=queue, settings=settings) as reader:
        assert await reader.read_batch(max_wait=0)
        await reader.read_batch(max_wait=0)


async def read_latest(queue: AcmeQueue, settings: Settings) -> None:
    """Begin at the latest value."""
    await (await open_reader("s", from_="last", queue=queue, settings=settings)).aclose()


async def sweep_all(queue: AcmeQueue, settings: Settings) -> None:
    """Sweep; an error that concerns one stream is a finding of the sweep."""

    async def judge(_: object) -> Verdict:
        return Verdict(Life.OVER, "it is over")

    request = SweepRequest(delete_persistent_seconds=0)
    for finding in (await sweep(queue, settings, request, judge)).findings:
        if finding.done == "failed":
            raise DriverError(finding.reason, backend="acme")


def info(**changes: object) -> Callable[[StreamInfo], StreamInfo]:
    """A change of a description."""
    return lambda found: dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def with_data(data: object) -> Callable[[Sequence[Stored]], list[Stored]]:
    """Records with other data."""
    return lambda found: [Stored(each.position, data) for each in found]  # type: ignore[arg-type]


def with_position(position: object) -> Callable[[Sequence[Stored]], list[Stored]]:
    """Records with another position."""
    return lambda found: [Stored(position, each.data) for each in found]  # type: ignore[arg-type]


async def beginning(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
    """Read from the beginning, whatever the place."""
    return await inner.read(stream, "", **limits)


async def circle(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
    """Read one record at a time, and after the third the first again."""
    found = list(await inner.read(stream, after, **{**limits, "max_records": 1}))
    first = (await inner.read(stream, "", **{**limits, "max_records": 3}))[2:]
    return [Stored("", first[0].data)] if found == list(first) else found


def endless(inner: ChunkQueue) -> Defect:
    """The first page again and again, at positions that are new each time."""
    count = iter(range(10**9))

    async def defect(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
        found = (await inner.read(stream, "", **limits))[:2]
        return [Stored(f"place {next(count)}", each.data) for each in found]

    return defect


async def unlimited(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
    """More bytes than requested, which a reader holds in memory."""
    found = await inner.read(stream, after, **limits)
    return [Stored(each.position, each.data + bytes(2**20)) for each in found]


async def too_many(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
    """More records than requested."""
    return [Stored(f"{n}", b"x") for n in range(limits["max_records"] + 1)]


async def one_only(inner: ChunkQueue, stream: StreamId, *, last: int = 0) -> StreamInfo:
    """A description with one record, however many are requested, which does not say how many."""
    found = await inner.describe(stream, last=min(last, 1))
    return dataclasses.replace(found, records=None)


async def behind(inner: ChunkQueue, stream: StreamId, *, last: int = 0) -> StreamInfo:
    """A description that lags behind the newest append."""
    found = await inner.describe(stream, last=last + 1)
    return dataclasses.replace(found, last=found.last[1:], records=None)


def sync(*_: object, **__: object) -> object:
    """Not a coroutine."""
    return None


async def no_generator(*_: object) -> None:
    """An ``async def`` that was meant to yield."""


def here(**options: Any) -> StreamInfo:
    return StreamInfo(**{"stream": STREAM, **options})


ROWS: list[tuple[str, Use, dict[str, Defect], str]] = [
    # What append does.
    ("append, KeyError", write, {"append": raising(KeyError("k"))}, r"append\(\) raised KeyError"),
    ("append, OSError", write, {"append": raising(OSError("o"))}, r"append\(\) raised OSError"),
    ("append, TimeoutError", write, {"append": raising(TimeoutError())}, "raised TimeoutError"),
    (
        "append, CancelledError",
        write,
        {"append": raising(asyncio.CancelledError())},
        r"append\(\) raised CancelledError although nobody",
    ),
    (
        "append, no stream",
        write,
        {"append": raising(StreamNotFoundError("none"))},
        "although it creates the stream",
    ),
    ("append, a group", write, {"append": raising(ExceptionGroup("g", [OSError()]))}, "Group"),
    ("append, not async", write, {"append": sync}, r"append\(\) raised TypeError"),
    ("append, nothing stored", write, {"append": returning(None)}, "was acknowledged, and then"),
    # What describe returns.
    ("describe, none", status, {"describe": returning(None)}, "returned None, not a StreamInfo"),
    ("describe, KeyError", status, {"describe": raising(KeyError())}, r"describe\(\) raised"),
    (
        "describe, another stream",
        status,
        {"describe": altering("describe", info(stream=StreamId("default", "t")))},
        "described",
    ),
    *[
        (
            f"describe, no records, {name}",
            use,
            {"describe": altering("describe", info(last=()))},
            r"describe\(last=\d\) returned no record of stream default/s, although it exists",
        )
        for name, use in {
            "status": status,
            "write": write,
            "latest": read_latest,
            "sweep": sweep_all,
        }.items()
    ],
    (
        "describe, too many",
        status,
        {"describe": altering("describe", lambda found: info(last=found.last * 9)(found))},
        r"returned \d+ records, more than 4",
    ),
    ("describe, too few", write, {"describe": one_only}, "as if they were all"),
    (
        "describe, oldest first",
        read_latest,
        {"describe": altering("describe", lambda found: info(last=found.last[::-1])(found))},
        "another order than the newest first",
    ),
    (
        "describe, one twice",
        status,
        {"describe": altering("describe", lambda found: info(last=found.last[:1] * 2)(found))},
        "or one of them twice",
    ),
    ("describe, behind", write, {"describe": behind}, "was acknowledged, and then only epoch"),
    *[
        (
            f"describe, {name}={value!r}",
            status,
            {"describe": altering("describe", info(**{name: value}))},
            f"describe.* returned {name}=",
        )
        for name, value in [
            ("expires_in", timedelta(seconds=-1)),
            ("expires_in", 60),
            ("records", -1),
            ("records", True),
            ("size_bytes", "1 MB"),
            ("size_bytes", 2**80),
            ("attempts", 1.5),
        ]
    ],
    (
        "describe, last=None",
        status,
        {"describe": altering("describe", info(last=None))},
        "returned last=None, not a tuple of Stored",
    ),
    (
        "describe, bytearray",
        status,
        {"describe": altering("describe", lambda i: info(last=with_data(bytearray())(i.last))(i))},
        "a record whose data is bytearray",
    ),
    # What read returns.
    ("read, None", read, {"read": returning(None)}, r"read\(\) returned None, not a sequence"),
    ("read, dict", read, {"read": returning({})}, "not a sequence of Stored"),
    ("read, a generator", read, {"read": returning(iter([]))}, "not a sequence of Stored"),
    ("read, bytes", read, {"read": returning([b"x"])}, "list with b'x', not a sequence of Stored"),
    ("read, None within", read, {"read": returning([None])}, "list with None"),
    ("read, str data", read, {"read": altering("read", with_data("x"))}, "data is 'x', no bytes"),
    (
        "read, bytearray",
        read,
        {"read": altering("read", with_data(bytearray(b"x")))},
        "data is bytearray",
    ),
    (
        "read, memoryview",
        read,
        {"read": altering("read", with_data(memoryview(b"x")))},
        "data is <memory",
    ),
    ("read, int position", read, {"read": altering("read", with_position(7))}, "position is 7"),
    (
        "read, odd position",
        read,
        {"read": altering("read", with_position("\0"))},
        "be printed",
    ),
    ("read, too many", read, {"read": too_many}, r"read\(max_records=256\) returned 257 records"),
    ("read, too large", read, {"read": unlimited}, r"read\(max_bytes=\d+\) returned \d+ records"),
    ("read, stands still", read, {"read": altering("read", with_position(""))}, "any further"),
    ("read, from the beginning", read, {"read": beginning}, "led from|any further"),
    ("read, in a circle", read, {"read": circle}, "led from position|never get any further"),
    ("read, in a circle, replay", replay, {"read": circle}, "led from position"),
    ("read, backwards", read, {"read": altering("read", lambda r: r[::-1])}, "another order"),
    ("read, backwards, gaps", read_gaps, {"read": altering("read", lambda r: r[::-1])}, "order"),
    ("read, KeyError", read, {"read": raising(KeyError("k"))}, r"read\(\) raised KeyError: 'k'"),
    ("read, TimeoutError", read, {"read": raising(TimeoutError("t"))}, "raised TimeoutError"),
    ("read, OSError, poll", read_batches, {"read": raising(OSError("o"))}, "raised OSError"),
    (
        "read, CancelledError",
        read,
        {"read": raising(asyncio.CancelledError())},
        "although nobody cancelled",
    ),
    # What streams yields.
    ("streams, foreign", sweep_all, {"streams": listing(here(stream=StreamId("t", "s")))}, "t/s"),
    ("streams, twice", sweep_all, {"streams": listing(here(), here())}, "yielded .* twice"),
    ("streams, None", sweep_all, {"streams": listing(None)}, "yielded None"),
    ("streams, names", sweep_all, {"streams": listing("s")}, "yielded 's', not the StreamInfo"),
    (
        "streams, absurd",
        sweep_all,
        {"streams": listing(here(records=-5))},
        r"streams\(\) returned records=-5",
    ),
    ("streams, coroutine", sweep_all, {"streams": no_generator}, "not an asynchronous iterator"),
    ("streams, list", sweep_all, {"streams": lambda *_: []}, "not an asynchronous iterator"),
    ("sweep, None", sweep_all, {"sweep": returning(None)}, r"sweep\(\) returned None"),
    ("sweep, OSError", sweep_all, {"sweep": raising(OSError("o"))}, r"sweep\(\) raised OSError"),
]


@pytest.fixture
async def stored(queue: ChunkQueue, settings: Settings) -> ChunkQueue:
    """The sound queue with a stream in it: two attempts, and no ending."""
    for values in (["a", "b"], ["c"]):
        writer = await open_writer("s", queue=queue, settings=settings, on_retry=OnRetry.RESUME)
        for value in values:
            await writer.send_chunk(value)
            await writer.flush()
        await writer.aclose()
    return queue


@pytest.mark.parametrize(
    ("use", "defects", "message"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
async def test_a_broken_driver_is_named_by_an_error_in_time(
    stored: ChunkQueue, settings: Settings, use: Use, defects: dict[str, Defect], message: str
) -> None:
    """Users report a defect to those who can mend it, and no program hangs or loses events.

    The stream that is swept is one that the sweep may end: its workflow is over.
    """
    queue = AcmeQueue(stored, **defects)
    async with asyncio.timeout(10):
        with pytest.raises(DriverError, match=message) as caught:
            await use(queue, settings)
    text = str(caught.value)
    assert "backend 'acme' broke the contract" in text
    assert "in streamq.driver" in text
    assert caught.value.backend == "acme"
    assert not caught.value.retryable


UNFENCED: list[tuple[str, Use, dict[str, bool], dict[str, Defect], str]] = [
    ("missing", read_latest, {}, {}, r"newest_epoch\(\) raised NotImplementedError"),
    ("None", read_latest, {}, {"newest_epoch": returning(None)}, "returned None, not a number"),
    ("negative", read_latest, {}, {"newest_epoch": returning(-1)}, "returned -1, not a number"),
    ("absurd", read_latest, {}, {"newest_epoch": returning(2**63)}, "not a number from 0"),
    (
        "forgotten",
        write,
        {"replay": False},
        {"newest_epoch": returning(0)},
        r"newest_epoch\(\) returned 0 although epoch \d+ has been opened",
    ),
    (
        "commit",
        consume,
        {"replay": False},
        {"newest_epoch": returning(0), "commit": raising(KeyError("c"))},
        r"commit\(\) raised KeyError",
    ),
]


@pytest.mark.parametrize(
    ("use", "flags", "defects", "message"),
    [row[1:] for row in UNFENCED],
    ids=[r[0] for r in UNFENCED],
)
async def test_a_broken_driver_without_a_fence_is_named_as_well(
    stored: ChunkQueue,
    settings: Settings,
    use: Use,
    flags: dict[str, bool],
    defects: dict[str, Defect],
    message: str,
) -> None:
    """Where the backend does not fence, streamq relies on one more call."""
    changed_flags: dict[str, Any] = {"fenced": False, **flags}
    capabilities = dataclasses.replace(stored.capabilities, **changed_flags)
    queue = AcmeQueue(stored, capabilities, **defects)
    async with asyncio.timeout(10):
        with pytest.raises(DriverError, match=message):
            await use(queue, settings)


async def test_the_same_page_again_and_again_is_no_endless_loop(
    stored: ChunkQueue, settings: Settings
) -> None:
    """Positions that look new hide it from a comparison of positions."""
    queue = AcmeQueue(stored, read=endless(stored))
    async with asyncio.timeout(10), open_reader("s", queue=queue, settings=settings) as reader:
        with pytest.raises(DriverError, match="page after page"):
            await reader.collect()
        assert reader.statistics().chunks == 1
        with pytest.raises(DriverError, match="page after page"):  # for good
            await reader.read_batch()


async def test_a_batch_ends_although_stale_records_never_do(
    stored: ChunkQueue, settings: Settings
) -> None:
    """Without a fence stale records are legal, and a reader must come back after its deadline."""
    capabilities = dataclasses.replace(stored.capabilities, fenced=False)
    queue = AcmeQueue(stored, capabilities, read=endless(stored))
    limited = settings.model_copy(update={"operation_seconds": 0.2})
    async with asyncio.timeout(10), open_reader("s", queue=queue, settings=limited) as reader:
        assert len(await reader.read_batch(max_wait=0)) == 1
        assert await reader.read_batch(max_wait=0) == []


async def test_reads_that_do_not_wait_are_slowed_down_and_reported(
    stored: ChunkQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that asks a hundred thousand times a second takes a processor and the server."""
    calls = 0

    async def hasty(inner: ChunkQueue, stream: StreamId, after: str, **limits: Any) -> Any:
        nonlocal calls
        calls += 1
        return await inner.read(stream, after, **{**limits, "max_wait": 0})

    queue = AcmeQueue(stored, read=hasty)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        with caplog.at_level(logging.WARNING, "streamq"):
            assert len(await reader.read_batch(max_wait=0)) == 3
            assert await reader.read_batch(max_wait=1) == []
        assert calls < 20
        (line,) = caplog.messages
        assert "backend 'acme' broke the contract: read(max_wait=" in line
        assert "5 times; reading goes on, with pauses" in line
        writing = asyncio.create_task(write(queue, settings))
        assert await reader.read_batch(max_wait=5)  # nothing is lost
        await writing


async def test_a_cancellation_by_the_caller_stays_one(
    stored: ChunkQueue, settings: Settings
) -> None:
    """Only a driver that raises CancelledError by itself is at fault."""
    queue = AcmeQueue(stored)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        await reader.read_batch(max_wait=0)
        reading = asyncio.create_task(reader.read_batch(max_wait=5))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read_batch(max_wait=5)


async def test_a_failing_release_is_logged_and_closing_goes_on(
    stored: ChunkQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The records come back by themselves; the defect must not stay unknown for that."""
    capabilities = dataclasses.replace(stored.capabilities, fenced=False, replay=False)
    queue = AcmeQueue(stored, capabilities, release=raising(KeyError("r")))
    with caplog.at_level(logging.WARNING, "streamq"):
        async with open_reader("s", queue=queue, settings=settings) as reader:
            assert await reader.read_batch(max_wait=0)
    assert "release() raised KeyError: 'r'" in caplog.text


async def test_a_defect_says_where_in_the_driver_it_is(
    stored: ChunkQueue, settings: Settings
) -> None:
    """The authors of the driver look for a line, not for a word."""
    queue = AcmeQueue(stored, describe=raising(KeyError("k")))
    with pytest.raises(
        DriverError, match=r"KeyError: 'k' \(broken_driver\.py, line \d+\)"
    ) as caught:
        await status_of("s", queue=queue, settings=settings)
    assert isinstance(caught.value.__cause__, KeyError)
