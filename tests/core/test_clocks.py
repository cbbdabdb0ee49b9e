"""Hosts whose clocks differ: who opens a stream last writes to it, and messages name the clock."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from tests.kit.log_driver import Log, LogQueue

from streamq import FencedError, Reset, Settings, StreamWriter, open_queue, open_reader, open_writer
from streamq.driver import ChunkQueue, StreamId

_OTHER_HOST = """
import sys, time
seconds = float(sys.argv[1])
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + seconds
time.time_ns = lambda: now_ns() + int(seconds * 1e9)

import asyncio
from streamq import open_writer

async def main():
    async with open_writer("s") as writer:
        await writer.send_chunk("from the other host")

asyncio.run(main())
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of a database that another process can use."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    monkeypatch.setenv("STREAMQ_BACKEND", "sqlite")
    return Settings(backend="sqlite")


@pytest.mark.parametrize("seconds", [-5, -3600, 5])
async def test_writer_on_a_host_with_another_clock_takes_over(
    seconds: int, database: Settings
) -> None:
    """A producer that fails over to a host that is 5 s behind must not be refused for 5 s."""
    async with open_queue(database) as queue:
        first = await open_writer("s", queue=queue, settings=database)
        await first.send_chunk("from here")
        await first.flush()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _OTHER_HOST, str(seconds)
        )
        assert await process.wait() == 0
        await first.send_chunk("late")
        with pytest.raises(FencedError):
            await first.flush()
        await first.aclose()
        async with open_reader("s", queue=queue, settings=database) as reader:
            events = [event async for event in reader]
        assert [type(event) for event in events].count(Reset) == 1
        async with open_reader("s", queue=queue, settings=database) as reader:
            assert await reader.collect() == ["from the other host"]


async def test_order_of_a_log_does_not_depend_on_clocks(settings: Settings) -> None:
    """The same without a backend that fences."""
    queue = LogQueue(Log())
    ahead = time.time_ns() // 1_000 + 3_600_000_000
    first = await open_writer("s", queue=queue, settings=settings, epoch=ahead)
    async with open_writer("s", queue=queue, settings=settings) as second:
        assert second.epoch == ahead + 1
        await second.send_chunk("b")
    await first.aclose()


async def test_two_that_open_at_the_same_moment(queue: ChunkQueue, settings: Settings) -> None:
    """Behind a clock that is ahead, both compute the same epoch; one of them must get through."""
    ahead = time.time_ns() // 1_000 + 3_600_000_000
    first = await open_writer("s", queue=queue, settings=settings, epoch=ahead)
    both = await asyncio.gather(
        *(open_writer("s", queue=queue, settings=settings) for _ in range(2)),
        return_exceptions=True,
    )
    newest = max((each for each in both if isinstance(each, StreamWriter)), key=epoch_of)
    await newest.send_chunk("a")
    await newest.finish()
    assert all(isinstance(each, StreamWriter | FencedError) for each in both)
    for writer in (first, *both):
        if isinstance(writer, StreamWriter):
            await writer.aclose()


def epoch_of(writer: StreamWriter) -> int:
    """Return the epoch of a writer."""
    return writer.epoch


async def test_refusal_names_the_clock(queue: ChunkQueue, settings: Settings) -> None:
    """ "Superseded" alone sends people to look for a second producer; it is the clock."""
    now = time.time_ns() // 1_000
    writer = await open_writer("s", queue=queue, settings=settings, epoch=now + 5_000_000)
    with pytest.raises(FencedError, match=r"\b[45]\.\d s ahead of this host's clock") as refused:
        await open_writer("s", queue=queue, settings=settings, epoch=now)
    assert refused.value.stream == str(StreamId(settings.tenant, "s"))
    await writer.aclose()


async def test_epochs_that_are_no_times_say_nothing_of_clocks(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An application may count its attempts itself."""
    writer = await open_writer("s", queue=queue, settings=settings, epoch=7)
    with pytest.raises(FencedError) as refused:
        await open_writer("s", queue=queue, settings=settings, epoch=6)
    assert "clock" not in str(refused.value)
    await writer.aclose()
