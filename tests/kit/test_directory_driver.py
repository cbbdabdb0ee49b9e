"""The documentation is enough to write a driver that passes what it declares."""

import ast
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from streamq.driver import (
    START,
    BackendError,
    BackendUnavailableError,
    ChunkQueue,
    Entry,
    StreamId,
)
from streamq.testing import BackendHarness, DriverSuite, OpenQueue

from . import directory_driver
from .directory_driver import DirectoryDriver, DirectorySettings

SOURCE = Path(directory_driver.__file__)


@contextmanager
def _disk_of_1_mib(where: Path, contents: Path, *, read_only: bool = False) -> Iterator[Path]:
    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        subprocess.run(command, check=True, capture_output=True, timeout=10)

    where.mkdir()
    try:
        mount("size=1m")
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"a small file system cannot be mounted here: {exc}")
    try:
        shutil.copytree(contents, where, dirs_exist_ok=True)
        if read_only:
            mount("remount,ro")
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True, timeout=10)


class DirectoryHarness(BackendHarness):
    """Gives each check a directory of its own; its hooks change the files."""

    driver = DirectoryDriver
    read_page = 100  # there are no pages, and each record is a file

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / "files"

    def settings(self) -> DirectorySettings:
        return DirectorySettings(path=self.path)

    def folder(self, stream: StreamId) -> Path:
        return self.path / "streams" / hashlib.sha256(stream.full_name.encode()).hexdigest()

    def _records(self, stream: StreamId) -> list[Path]:
        return sorted(self.folder(stream).glob("*/*"))

    async def peek(self, stream: StreamId) -> list[bytes]:
        return [record.read_bytes() for record in self._records(stream)]

    async def trim(self, stream: StreamId, keep: int) -> None:
        for record in self._records(stream)[:-keep]:
            record.unlink()

    async def restart(self) -> None:
        """Continue with the files on the disk, and with the remains of writers that died."""
        left = self.directory / "left"
        shutil.copytree(self.path, left)
        (left / "streams" / "begun").mkdir()
        for folder in (left / "streams").iterdir():
            (folder / "unfinished").write_bytes(b"hal")
        self.path = left

    @asynccontextmanager
    async def full(self) -> AsyncIterator[DirectorySettings]:
        with _disk_of_1_mib(self.directory / "full", self.path) as disk:
            yield DirectorySettings(path=disk)

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[DirectorySettings]:
        with _disk_of_1_mib(self.directory / "ro", self.path, read_only=True) as disk:
            yield DirectorySettings(path=disk)

    def unreachable(self) -> DirectorySettings:
        (self.directory / "file").touch()
        return DirectorySettings(path=self.directory / "file" / "nowhere")


@pytest.mark.full
class TestDirectory(DriverSuite):
    """The driver of a third party fulfils its declaration."""

    harness_type = DirectoryHarness

    async def test_writer_behind_a_held_lock_is_told_and_readers_go_on(
        self,
        open_queue: OpenQueue,
        stream: StreamId,
        backend: DirectoryHarness,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A writer that was stopped within an append must not block others for ever."""
        monkeypatch.setattr(directory_driver, "CALL_SECONDS", 0.2)
        queue = await open_queue()
        await queue.append(stream, [Entry(1, 0, b"a")])
        with (backend.path / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(BackendUnavailableError, match="append within"):
                await queue.append(stream, [Entry(1, 1, b"b")])
            read = await queue.read(stream, START, max_records=9, max_bytes=9, max_wait=0)
        assert [record.data for record in read] == [b"a"]

    async def test_damaged_head_is_an_error_of_streamq(
        self, queue: ChunkQueue, stream: StreamId, backend: DirectoryHarness
    ) -> None:
        """After a power cut a file may have any content, and the error has to report it."""
        await queue.append(stream, [Entry(1, 0, b"a")])
        (backend.folder(stream) / "head").write_bytes(b"\0\0\0")
        with pytest.raises(BackendError):
            await queue.describe(stream)

    async def test_what_writers_left_that_died_is_swept(
        self, queue: ChunkQueue, backend: DirectoryHarness, open_queue: OpenQueue
    ) -> None:
        """A stream without a head cannot be found, so it would never be deleted."""
        await backend.restart()
        await (await open_queue()).sweep()
        assert list((backend.path / "streams").iterdir()) == []


def test_it_is_short() -> None:
    """Writing a driver should take no more than an afternoon."""
    assert len(SOURCE.read_text().splitlines()) < 200


def test_it_needs_public_modules_only() -> None:
    """A third party can use public names only."""
    imported = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert [name for name in imported if name.split(".")[0] == "streamq"] == ["streamq.driver"]
