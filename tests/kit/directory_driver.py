"""A third-party driver, written from the documentation alone: streams in a directory of files.

A stream is ``streams/<digest>/``: ``head``, and ``<life>/`` with a file for each record. Replacing
``head`` commits an append, moving the directory commits a delete, so readers need no lock.
"""

import asyncio
import errno
import fcntl
import hashlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, NamedTuple

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq import driver as sd

POLL_SECONDS, POLL_LOCK_SECONDS, CALL_SECONDS = 0.01, 0.001, 5.0
FILE_NAME = "{:020d}-{:020d}".format


class DirectorySettings(sd.DriverSettings):
    model_config = SettingsConfigDict(env_prefix="STREAMQ_DIRECTORY_")
    toml_table: ClassVar[str] = "directory"
    path: Path = Field(Path(".streamq/files"), description="directory on a local disk; is created")


class _Head(NamedTuple):
    stream: str
    life: str  # Changes after a delete, so that two streams are distinguished.
    epoch: int  # Of the newest record, as the next one.
    last: int
    expires: float


def _head(folder: Path) -> _Head | None:
    with suppress(FileNotFoundError):
        head = _Head(*json.loads((folder / "head").read_bytes()))
        return head if head.expires > time.time() else None
    return None


def _put(path: Path, data: bytes) -> None:
    path.with_name("unfinished").write_bytes(data)
    path.with_name("unfinished").replace(path)  # Atomic, even if the writer is killed.


def _remove(folder: Path) -> None:
    # In a directory without a head, which a sweep removes if this process is killed.
    with TemporaryDirectory(None, None, folder.parent) as gone, suppress(FileNotFoundError):
        folder.rename(Path(gone) / "stream")


def _error(exc: Exception, stream: str | None) -> sd.StreamqError | None:
    if isinstance(exc, ValueError | TypeError):
        return sd.BackendError(f"a stream's head is damaged: {exc}; delete its directory")
    if not isinstance(exc, OSError):
        return None
    error: type[sd.StreamqError] = sd.BackendUnavailableError
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error = sd.StorageFullError
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        error = sd.AccessDeniedError
    return error(f"{exc}; look at the disk")


class DirectoryQueue(sd.ChunkQueue):
    backend = "directory"

    def __init__(self, options: sd.QueueOptions, path: Path) -> None:
        self.capabilities, self._options = DirectoryDriver.capabilities, options
        self._streams, self._lock = path / "streams", path / "lock"
        self._guard = sd.Guard(self.backend, _error, seconds=CALL_SECONDS)

    def _folder(self, stream: sd.StreamId) -> Path:
        return self._streams / hashlib.sha256(stream.full_name.encode()).hexdigest()

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        with self._lock.open("ab") as lock:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(POLL_LOCK_SECONDS)
            yield

    async def append(
        self, stream: sd.StreamId, entries: Sequence[sd.Entry], *, ttl: timedelta | None = None
    ) -> None:
        if not entries:
            return
        async with self._guard(stream), self._locked():
            head = _head(folder := self._folder(stream))
            newest, life = sd.BEFORE_ALL, str(time.time_ns())
            if head:
                newest, life = (head.epoch, head.last), head.life
            else:
                _remove(folder)
                folder.mkdir()
                (folder / life).mkdir()
            await asyncio.sleep(0)  # Readers in this process run.
            for entry in sd.new_entries(entries, newest, backend=self.backend, stream=stream):
                newest = (entry.epoch, entry.index)
                _put(folder / life / FILE_NAME(*newest), entry.data)
            expires = time.time() + (ttl or self._options.ttl).total_seconds()
            head = _Head(stream.full_name, life, *newest, expires)
            _put(folder / "head", json.dumps(head).encode())

    def _look(
        self, stream: sd.StreamId, after: str, chosen: slice, room: float
    ) -> tuple[_Head | None, list[sd.Stored]]:
        folder = self._folder(stream)
        while (head := _head(folder)) and (newest := FILE_NAME(head.epoch, head.last)) > after:
            records, size = list[sd.Stored](), 0
            with suppress(FileNotFoundError):  # Trimmed or deleted in between.
                there = (f for f in (folder / head.life).iterdir() if after < f.name <= newest)
                for file in sorted(there)[chosen]:
                    size += len(data := file.read_bytes())
                    if records and size > room:
                        break
                    epoch, index = map(int, file.name.split("-"))
                    records.append(sd.Stored(sd.encode_position((epoch, index)), data))
                return head, records
        return head, []

    async def read(
        self, stream: sd.StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[sd.Stored]:
        name = FILE_NAME(*sd.decode_position(after, backend=self.backend, stream=stream))
        until = asyncio.get_running_loop().time() + max_wait
        while True:
            async with self._guard(stream):
                _, found = self._look(stream, name, slice(max_records), max_bytes)
            if found or asyncio.get_running_loop().time() >= until:
                return found
            await asyncio.sleep(POLL_SECONDS)  # Other processes send no event.

    async def describe(self, stream: sd.StreamId, *, last: int = 0) -> sd.StreamInfo:
        async with self._guard(stream):
            head, records = self._look(stream, "", slice(None, -last - 1, -1), float("inf"))
            if head is None:
                raise sd.not_found_error(self.backend, stream)
        expires_in = timedelta(seconds=head.expires - time.time())
        return sd.StreamInfo(stream, tuple(records), expires_in=expires_in)

    async def delete(self, stream: sd.StreamId) -> None:
        async with self._guard(stream), self._locked():
            _remove(self._folder(stream))

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[sd.StreamInfo]:
        async with self._guard():
            heads = list(map(_head, self._streams.iterdir()))
        for head in heads:
            if head and head.stream.startswith(f"{tenant}/{prefix}"):
                with suppress(sd.StreamNotFoundError):
                    yield await self.describe(sd.StreamId(*head.stream.split("/", 1)))

    async def sweep(self) -> int:
        async with self._guard(), self._locked():
            expired = [folder for folder in self._streams.iterdir() if not _head(folder)]
            return len(list(map(_remove, expired)))

    async def aclose(self) -> None:
        self._guard.close()


class DirectoryDriver(sd.Driver[DirectorySettings]):
    name = "directory"
    summary = "a directory of files, for the processes of one machine"
    settings_type = DirectorySettings
    capabilities = sd.Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=False,
        expires=True,
        max_record_bytes=1_048_576,
        latency=sd.LatencyClass.TENS_OF_MILLISECONDS,
    )

    @classmethod
    async def open(cls, options: sd.QueueOptions, settings: DirectorySettings) -> DirectoryQueue:
        queue = DirectoryQueue(options, settings.path)
        async with queue._guard():
            queue._streams.mkdir(parents=True, exist_ok=True)
        return queue
