"""A disk without a byte left: reading works, and deleting makes room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ON_A_SMALL_DISK = 'mount -t tmpfs -o size=8m none "$0" && cd "$0" && exec "$@"'

_SCRIPT = """
import asyncio, contextlib, os, sys
from datetime import timedelta
from pathlib import Path
from streamq import StorageFullError, load_settings, open_queue, open_reader, open_writer
from streamq.driver import Entry, StreamId

settings = load_settings(backend="sqlite", retry_seconds=0.05)
FIRST, SECOND = StreamId("default", "first"), StreamId("default", "second")

def free():
    disk = os.statvfs(".")
    return disk.f_bavail * disk.f_frsize

def fill_disk():
    with contextlib.suppress(OSError), open("filler", "ab", buffering=0) as filler:
        for size in (2**16, 2**12, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    pass
    assert free() == 0, free()

async def append_until_full(queue):
    index = 0
    with contextlib.suppress(StorageFullError):
        while True:
            await queue.append(FIRST, [Entry(1, index, os.urandom(2**15))])
            index += 1
    return index

async def read_and_list(count):
    async with open_queue(settings) as queue:
        names = [info.stream.name async for info in queue.streams("default")]
        assert names == ["first", "second"], names
        found = await queue.read(FIRST, "", max_records=10**6, max_bytes=2**30, max_wait=0)
        assert len(found) == count, (len(found), count)
        # A blocked read, too: tail waits for more.
        position = found[-1].position
        assert not await queue.read(FIRST, position, max_records=1, max_bytes=1, max_wait=0.2)

async def delete_and_write_again(queue):
    await queue.delete(FIRST)
    assert [info.stream.name async for info in queue.streams("default")] == ["second"]
    for index in range(1, 20):
        await queue.append(SECOND, [Entry(1, index, os.urandom(2**15))])
    found = await queue.read(SECOND, "", max_records=10**6, max_bytes=2**30, max_wait=0)
    assert len(found) == 20

async def main(is_open):
    queue = await open_queue(settings)
    await queue.append(SECOND, [Entry(1, 0, b"x")])
    count = await append_until_full(queue)
    assert count > 20
    if not is_open:
        await queue.aclose()
    fill_disk()
    await read_and_list(count)
    await read_and_list(count)
    if not is_open:
        queue = await open_queue(settings)
    await delete_and_write_again(queue)
    await queue.aclose()

async def sweep():
    async with open_queue(settings) as queue:
        for index in range(20):
            await queue.append(FIRST, [Entry(1, index, os.urandom(2**15))])
    fill_disk()
    async with open_queue(settings) as queue:
        assert await queue.sweep() == 0

asyncio.run(sweep() if sys.argv[1] == "sweep" else main(sys.argv[1] == "open"))
"""


@pytest.mark.parametrize("queue", ["open", "closed", "sweep"])
def test_full_disk_can_be_read_and_freed(queue: str, tmp_path: Path) -> None:
    """ "Delete streams" is the advice; it has to work at the moment when it is needed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    alone = [unshare, "--user", "--map-root-user", "--mount", "--", "sh", "-c"]
    if subprocess.run([*alone, _ON_A_SMALL_DISK, disk, "true"], check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    done = subprocess.run(
        [*alone, _ON_A_SMALL_DISK, disk, sys.executable, "-c", _SCRIPT, queue],
        env={"STREAMQ_SQLITE_PATH": str(disk / "streams.db"), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
