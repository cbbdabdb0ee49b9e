"""A sound driver on a server inside this process, which sabotaged drivers derive from; its harness.

The server stores with the memory driver: a connection is one of its queues, the disk is its store.
Therefore every fault of a real server can be tested offline, and in virtual time.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from streamq import memory
from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    Capabilities,
    ChunkQueue,
    ClosedError,
    Driver,
    DriverSettings,
    Entry,
    Finding,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamqError,
)
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import BackendHarness, DriverSuite

NAME = "sabotaged"
ROUND_TRIP_SECONDS = 0.001
ANSWER_SECONDS = 1.0
_STORE_BYTES = 32 * 2**20
_PASSWORD = "correct horse"

OTHER_PROCESS = "no other process can reach a server inside this one"

CAPABILITIES = Capabilities(
    replay=True,
    fan_out=True,
    ordered=True,
    fenced=True,
    durable=True,
    cross_process=True,
    cross_host=True,
    expires=True,
    max_record_bytes=2**20,
    latency=LatencyClass.MILLISECONDS,
)


class SabotagedSettings(DriverSettings):
    """Address and password of the server."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_SABOTAGED_")

    toml_table = NAME

    server: str = Field(default="", description="name of the server")
    password: SecretStr = Field(default=SecretStr(_PASSWORD), description="what it asks for")
    replica: bool = Field(default=False, description="whether it is one that cannot be written")


class Server:
    """The state that all connections share. It answers after one round trip, unless it hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk = memory._stores.get(name)
        self.disk_settings = MemorySettings(store=name, max_bytes=_STORE_BYTES)
        self.trash: dict[StreamId, list[bytes]] = {}
        self.notes: dict[object, object] = {}
        self.at_restart: list[Callable[[], None]] = []
        self.foreign: set[str] = set()
        self.is_answering = asyncio.Event()
        self.is_answering.set()
        self.delay = 0.0
        self.links: list[ChunkQueue] = []

    async def answer(self, deadline: float | None = ANSWER_SECONDS) -> None:
        """Make one round trip."""
        try:
            async with asyncio.timeout(deadline):
                await asyncio.sleep(ROUND_TRIP_SECONDS + self.delay)
                await self.is_answering.wait()
        except TimeoutError as exc:
            raise BackendUnavailableError(
                f"server {self.name} has not answered for {deadline} s; is it running?",
                backend=NAME,
            ) from exc

    async def connect(self, ttl: timedelta) -> ChunkQueue:
        """Open a connection."""
        link = await MemoryDriver.open(QueueOptions(ttl=ttl), self.disk_settings)
        self.links.append(link)
        return link

    async def break_connections(self) -> None:
        """Cut every connection."""
        cut, self.links = self.links, []
        for link in cut:
            await link.aclose()

    async def restart(self) -> None:
        """Lose every connection, and records that are not on the disk."""
        await self.break_connections()
        for lose in self.at_restart:
            lose()

    def stored(self, stream: StreamId) -> memory._Stream | None:
        """Return the records on the disk."""
        return self.disk.find(stream, asyncio.get_running_loop().time())

    def newest(self, stream: StreamId) -> tuple[int, int]:
        """Return epoch and index of the newest record."""
        found = self.stored(stream)
        return found.keys[-1] if found and found.keys else (0, -1)

    def forget(self, stream: StreamId, chosen: slice) -> None:
        """Remove records from the disk."""
        found = self.stored(stream)
        if found is not None:
            del found.keys[chosen]
            del found.records[chosen]


SERVERS: dict[str, Server] = {}
"""The servers that are running."""


def checks(names: str) -> tuple[str, ...]:
    """Return the names of checks, which are separated by blanks."""
    return tuple(names.split())


class SoundQueue(ChunkQueue):
    """A queue that fulfils its declaration; every sabotaged queue is this one with one fault."""

    backend = NAME
    name: ClassVar[str] = NAME
    declared: ClassVar[Capabilities] = CAPABILITIES
    promised: ClassVar[Capabilities] = CAPABILITIES
    settings_type: ClassVar[type[DriverSettings]] = SabotagedSettings
    deadline: ClassVar[float | None] = ANSWER_SECONDS
    max_bytes: ClassVar[int] = CAPABILITIES.max_record_bytes
    findings: ClassVar[tuple[Finding, ...]] = (Finding("server", True, "it answers"),)
    caught_by: ClassVar[tuple[str, ...]] = ()
    """Exactly the checks that fail because of the fault, without ``test_``."""

    def __init__(self, options: QueueOptions, settings: SabotagedSettings, server: Server) -> None:
        self.capabilities = self.declared
        self.options = options
        self.settings = settings
        self.server = server
        self.is_closed = False
        self._link: ChunkQueue | None = None

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        """Find the server; check that it answers and accepts the password."""
        server = SERVERS.get(settings.server)
        if server is None:
            raise BackendUnavailableError(
                f"no server listens at {settings.server!r}; check the address", backend=NAME
            )
        await server.answer(cls.deadline)
        if settings.password.get_secret_value() != _PASSWORD:
            raise AccessDeniedError(
                "the server refuses the password; check STREAMQ_SABOTAGED_PASSWORD", backend=NAME
            )
        return cls(options, settings, server)

    async def link(self) -> ChunkQueue:
        """Return the connection after one round trip; open one if there is none."""
        self.check_open()
        await self.server.answer(self.deadline)
        self.check_open()
        if self._link is None:
            self._link = await self.server.connect(self.options.ttl)
        return self._link

    def check_open(self, stream: StreamId | None = None) -> None:
        """Raise if the queue has been closed; a call for a stream names it."""
        if self.is_closed:
            raise ClosedError(
                "this queue has been closed; open another",
                backend=self.backend,
                stream=str(stream) if stream else None,
            )

    @contextmanager
    def translated(self, stream: StreamId | None) -> Iterator[None]:
        """Convert errors of the connection to streamq's."""
        try:
            yield
        except ClosedError as exc:
            self.check_open(stream)
            self._link = None
            raise BackendUnavailableError(
                "the connection was lost; try again",
                backend=self.backend,
                stream=str(stream) if stream else None,
            ) from exc
        except StreamqError as exc:
            exc.backend = self.backend
            exc.stream = str(stream) if stream else None
            raise

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        with self.translated(stream):
            link = await self.link()
            self.check_writable()
            found = self.altered(stream, list(entries))
            for entry in found:
                self.check_size(entry)
            await self.store(link, stream, found, ttl)

    def check_writable(self) -> None:
        """Raise if the server cannot be written to."""
        if self.settings.replica:
            raise AccessDeniedError("a replica cannot be written; find the primary")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        """Return the records of an append that are stored."""
        return entries

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        """Make the round trip that stores."""
        await link.append(stream, entries, ttl=ttl)

    def check_size(self, entry: Entry) -> None:
        """Raise if a record is too large."""
        if len(entry.data) > self.max_bytes:
            raise BackendError(
                f"a record of {len(entry.data)} bytes is larger than {self.max_bytes}; split it"
            )

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        with self.translated(stream):
            link = await self.link()
            return await link.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        with self.translated(stream):
            link = await self.link()
            return await link.describe(stream, last=last)

    async def delete(self, stream: StreamId) -> None:
        with self.translated(stream):
            link = await self.link()
            self.check_writable()
            await link.delete(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        for info in await self.listed(tenant, prefix):
            yield info

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        """Return the streams that :meth:`streams` yields."""
        with self.translated(None):
            link = await self.link()
            return [info async for info in link.streams(tenant, prefix)]

    async def sweep(self) -> int:
        with self.translated(None):
            link = await self.link()
            return await link.sweep()

    async def aclose(self) -> None:
        self.is_closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()


class SabotagedDriver(Driver[SabotagedSettings]):
    """Opens queues of the one class under test."""

    queue_type: ClassVar[type[SoundQueue]]
    summary = "has one fault"

    @classmethod
    async def open(cls, options: QueueOptions, settings: SabotagedSettings) -> ChunkQueue:
        return await cls.queue_type.connect(options, settings)

    @classmethod
    async def examine(cls, options: QueueOptions, settings: SabotagedSettings) -> list[Finding]:
        return list(cls.queue_type.findings)


class SabotageHarness(BackendHarness):
    """Gives each check a server of its own, and supplies every hook."""

    patience_seconds = 5.0
    answer_seconds = 2.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.server = Server(str(directory))
        # Not read from the environment, which would take as long as many checks.
        self._settings = SabotagedSettings.model_construct(server=self.server.name)

    @property
    def label(self) -> str:
        queue: type[SoundQueue] = self.driver.__dict__["queue_type"]
        return queue.__name__

    def settings(self) -> SabotagedSettings:
        return self._settings

    async def start(self) -> None:
        SERVERS[self.server.name] = self.server

    async def stop(self) -> None:
        SERVERS.pop(self.server.name, None)

    async def peek(self, stream: StreamId) -> list[bytes]:
        found = self.server.disk._streams.get(stream)
        there = [] if found is None else [record.data for record in found.records]
        return self.server.trash.get(stream, []) + there

    async def trim(self, stream: StreamId, keep: int) -> None:
        self.server.forget(stream, slice(None, -keep))

    async def plant(self, tenant: str) -> None:
        self.server.foreign.add(tenant)

    async def break_connections(self) -> None:
        await self.server.break_connections()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        self.server.delay = seconds
        yield
        self.server.delay = 0.0

    async def restart(self) -> None:
        await self.server.restart()

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        self.server.is_answering.clear()
        try:
            yield
        finally:
            self.server.is_answering.set()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[SabotagedSettings]:
        filler = StreamId("filler", "filler")
        link = await self.server.connect(timedelta(hours=1))
        free = _STORE_BYTES - self.server.disk._cost_bytes - 1000
        await link.append(filler, [Entry(1, 0, bytes(free))])
        yield self.settings()
        await link.delete(filler)
        await link.aclose()

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[SabotagedSettings]:
        yield SabotagedSettings(server=self.server.name, replica=True)

    def wrong_credentials(self) -> tuple[SabotagedSettings, str]:
        secret = "battery staple"
        return SabotagedSettings(server=self.server.name, password=SecretStr(secret)), secret

    def unreachable(self) -> SabotagedSettings:
        return SabotagedSettings(server="nowhere")


class InProcessSuite(DriverSuite):
    """The suite in virtual time, without the checks that start another process."""

    virtual_time = True
    subscribers = 20

    @pytest.fixture
    def harness(self) -> BackendHarness:
        """Return a harness without a directory, because thousands of these would take too long."""
        return self.harness_type(Path(uuid.uuid4().hex))

    @pytest.fixture(autouse=True)
    def _one_process(self, request: pytest.FixtureRequest) -> None:
        if "another_process" in request.function.__name__:
            pytest.skip(OTHER_PROCESS)


def suite_of(queue: type[SoundQueue]) -> type[DriverSuite]:
    """Return the suite for a queue."""
    driver = type(
        f"{queue.__name__}Driver",
        (SabotagedDriver,),
        {
            "__doc__": queue.__doc__,
            "queue_type": queue,
            "name": queue.name,
            "capabilities": queue.promised,
            "settings_type": queue.settings_type,
        },
    )
    harness = type(f"{queue.__name__}Harness", (SabotageHarness,), {"driver": driver})
    return type(f"Test{queue.__name__}", (InProcessSuite,), {"harness_type": harness})
