"""Another event loop, or a forked process: what was opened elsewhere fails at once and says why."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from streamq import (
    BlockingStreamWriter,
    ForeignLoopError,
    StreamNotFoundError,
    open_queue,
    open_reader,
    open_writer,
)
from streamq._settings import Settings
from streamq.driver import ChunkQueue, StreamId

Use = Callable[[], Coroutine[Any, Any, object]]
STREAM = StreamId("default", "s")


@pytest.fixture(params=["memory", "sqlite"])
def settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Settings:
    """Return settings of a backend in this process, with a store of the test's own."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", str(tmp_path))
    return Settings(backend=request.param)


def refused_at_once(use: Use, match: str = "has ended") -> None:
    """Run a call in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await use()

    with pytest.raises(ForeignLoopError, match=match):
        asyncio.run(bounded())


def test_queue_of_a_loop_that_has_ended(settings: Settings) -> None:
    """Two calls of asyncio.run() with one queue: a read would wait for ever."""
    queue: ChunkQueue = asyncio.run(opened(open_queue(settings)))

    async def listed() -> list[object]:
        return [info async for info in queue.streams("default")]

    refused_at_once(lambda: queue.describe(STREAM))
    refused_at_once(lambda: queue.read(STREAM, "", max_records=1, max_bytes=1, max_wait=60))
    refused_at_once(listed)
    asyncio.run(queue.aclose())
    assert_no_threads()


async def opened(opening: Any) -> Any:
    """Await an opening, for `asyncio.run`."""
    return await opening


def assert_no_threads() -> None:
    """Wait until no thread of a queue is left."""
    for thread in threading.enumerate():
        if thread.name.startswith("streamq-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name


def test_dropped_queue_leaves_no_threads(settings: Settings) -> None:
    """A web framework that opens one in each short-lived loop would collect threads."""
    asyncio.run(opened(open_queue(settings)))
    assert_no_threads()


def test_writer_of_a_loop_that_has_ended(settings: Settings) -> None:
    """Chunks would pile up in its buffer and never be sent."""
    writer = asyncio.run(opened(open_writer("s", settings=settings)))

    async def send() -> None:
        await writer.send_chunk("a")

    refused_at_once(send)
    refused_at_once(writer.flush)
    refused_at_once(writer.finish)
    refused_at_once(lambda: writer.fail("no"))
    with pytest.raises(ForeignLoopError):
        writer.send_nowait("a")


def test_reader_of_another_loop_that_still_runs(settings: Settings) -> None:
    """A gateway in a thread of its own must not be given the worker's reader."""

    async def main() -> None:
        async with open_queue(settings) as queue, open_reader("s", queue=queue) as reader:
            await asyncio.to_thread(refused_at_once, reader.read_batch, "is another")
            await asyncio.to_thread(refused_at_once, reader.aclose, "is another")
            await asyncio.to_thread(refused_at_once, queue.aclose, "is another")

    asyncio.run(main())


def test_thread_with_a_loop_of_its_own_may_send(settings: Settings) -> None:
    """An activity in a thread may run asyncio there; its writer belongs to the worker's loop."""

    async def main() -> None:
        async with open_queue(settings) as queue:
            async with open_writer("s", queue=queue, settings=settings) as writer:
                blocking = BlockingStreamWriter(writer)

                async def elsewhere() -> None:
                    blocking.send_chunk("a")
                    writer.send_nowait("b")
                    blocking.flush()

                await asyncio.to_thread(asyncio.run, elsewhere())
            async with open_reader("s", queue=queue, settings=settings) as reader:
                assert await reader.collect() == ["a", "b"]

    asyncio.run(main())


def test_memory_stream_that_was_dropped_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between two calls of asyncio.run() nothing keeps it; waiting for it would be in vain."""
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", str(tmp_path))
    settings = Settings(backend="memory")

    async def write() -> None:
        async with open_writer("s", settings=settings) as writer:
            await writer.send_chunk("a")

    async def read() -> list[object]:
        async with asyncio.timeout(20), open_reader("s", settings=settings) as reader:
            return await reader.collect()

    asyncio.run(write())
    with pytest.raises(StreamNotFoundError, match="last queue"):
        asyncio.run(read())
    asyncio.run(write())  # the name can be used again


_FORK = """
import asyncio, os, sys
from streamq import ForeignLoopError, BlockingStreamWriter, open_queue, open_reader, open_writer

def child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as exc:
            print(type(exc).__name__, exc, file=sys.stderr)
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)

def refused(call):
    try:
        call()
    except ForeignLoopError as exc:
        assert "fork" in str(exc), exc
    else:
        raise AssertionError("the call was not refused")

async def own():
    "A queue that the child opens itself."
    async with asyncio.timeout(20):
        async with open_writer("child") as writer:
            await writer.send_chunk("from the child")
        if os.environ["STREAMQ_BACKEND"] == "sqlite":
            async with open_reader("s", idle_seconds=10) as reader:
                assert (await reader.read_batch())[0].value == "a"

async def main():
    queue = await open_queue()
    writer = await open_writer("s", queue=queue)
    await writer.send_chunk("a")
    await writer.flush()
    blocking = BlockingStreamWriter(writer)
    reads = asyncio.create_task(anext(reader := await open_reader("later", queue=queue)))
    await asyncio.sleep(0.1)

    def work():
        refused(lambda: writer.send_nowait("b"))
        refused(blocking.flush)
        refused(lambda: asyncio.run(queue.describe(writer.stream)))
        refused(lambda: asyncio.run(writer.flush()))
        asyncio.run(queue.aclose())
        asyncio.run(own())

    assert child(work) == 0
    await writer.send_chunk("c")
    await writer.finish()
    async with open_writer("later", queue=queue) as later:
        await later.send_chunk("d")
    assert (await reads).value == "d"
    async with open_reader("s", queue=queue) as reader:
        assert await reader.collect() == ["a", "c"]
    await queue.aclose()
    if os.environ["STREAMQ_BACKEND"] == "sqlite":
        async with open_reader("child", must_exist=True) as reader:
            assert await reader.collect() == ["from the child"]

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_forked_child_is_refused_and_harms_nothing(backend: str, tmp_path: Path) -> None:
    """SQLite does not survive a fork: the child's locks would be lies, and the file damaged."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FORK)],
        env={
            "STREAMQ_BACKEND": backend,
            "STREAMQ_SQLITE_PATH": str(tmp_path / "streams.db"),
            "PYTHONPATH": ":".join(sys.path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
