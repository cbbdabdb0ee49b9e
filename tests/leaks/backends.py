"""Backends that are inspected past their drivers, for what is left in them."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import gc
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

from streamq import memory
from streamq._sqlite._doorbells import Doorbells


class Backend(abc.ABC):
    """A backend of one test.

    Attributes:
        name: The driver's.
        environment: Variables that lead to it.
        is_shared: Whether other processes can use it.
        immortal: What was seen without a time to live, or with one that is too long.
        samples: How often that was looked for.
    """

    name: str
    environment: dict[str, str]
    is_shared = True

    def __init__(self) -> None:
        self.immortal: list[object] = []
        self.samples = 0

    @contextlib.asynccontextmanager
    async def watched(self, longest_seconds: float) -> AsyncIterator[None]:
        """Look all the time whether everything stored has a time to live."""
        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():
                self.immortal += await self.sample(longest_seconds)
                self.samples += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.005)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            over.set()
            await watching

    @abc.abstractmethod
    async def sample(self, longest_seconds: float) -> list[object]:
        """Return what has no time to live, or a longer one."""

    @abc.abstractmethod
    async def remains(self) -> list[object]:
        """Return what takes room, as it is stored."""

    @abc.abstractmethod
    async def litter(self) -> list[str]:
        """Return what is there beside the data though everything of ours is closed."""


class Memory(Backend):
    name = "memory"
    is_shared = False

    def __init__(self, store: str) -> None:
        super().__init__()
        self.environment = {"STREAMQ_MEMORY_STORE": store}
        self._name = store

    @property
    def _store(self) -> memory._Store:
        return memory._stores.get(self._name)

    async def sample(self, longest_seconds: float) -> list[object]:
        latest = asyncio.get_running_loop().time() + longest_seconds
        with self._store.lock:
            found = self._store._streams
            return [name for name, each in found.items() if each.expires_at > latest]

    async def remains(self) -> list[object]:
        store = self._store
        with store.lock:
            counted = [f"{store._cost_bytes} bytes"] if store._cost_bytes else []
            return [*store._streams, *store._waiters, *counted]

    async def litter(self) -> list[str]:
        gc.collect()  # an abandoned writer holds its queue, and that the store
        return ["the store"] if self._name in memory._stores else []


class Sqlite(Backend):
    name = "sqlite"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.environment = {"STREAMQ_SQLITE_PATH": str(path)}
        self._path = path

    def _ask(self, question: str, *parameters: object) -> list[object]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            return [row[0] for row in connection.execute(question, parameters)]

    async def sample(self, longest_seconds: float) -> list[object]:
        latest = int((time.time() + longest_seconds) * 1_000)
        lost = (
            "SELECT id FROM records WHERE stream NOT IN (SELECT id FROM streams)"
            " AND stream NOT IN (SELECT stream FROM buried)"
        )
        late = "SELECT name FROM streams WHERE expires_ms > ? OR expires_ms = 0"
        return [*self._ask(late, latest), *self._ask(lost)]

    async def remains(self) -> list[object]:
        return [
            *self._ask("SELECT name FROM streams"),
            *self._ask("SELECT 'record ' || id FROM records"),
            *self._ask("SELECT 'buried ' || stream FROM buried"),
        ]

    async def litter(self) -> list[str]:
        expected = {self._path.name, f"{self._path.name}-wal", f"{self._path.name}-shm"}
        # Far from the file if its path is too long for a socket.
        bells = Doorbells(self._path).directory
        found = {*self._path.parent.rglob("*"), *bells.glob("*"), *bells.parent.glob(bells.name)}
        return [str(each) for each in found if each.name not in expected]


class Redis(Backend):
    name = "redis"

    def __init__(self, url: str) -> None:
        import redis.asyncio

        super().__init__()
        self.environment = {"STREAMQ_REDIS_URL": url}
        self.client = redis.asyncio.Redis.from_url(url)

    async def sample(self, longest_seconds: float) -> list[object]:
        keys = [key async for key in self.client.scan_iter(count=1_000)]
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.pttl(key)
        left = await pipeline.execute()
        # -2 is one that is gone meanwhile.
        latest = longest_seconds * 1_000
        return [key for key, ms in zip(keys, left, strict=True) if ms == -1 or ms > latest]

    async def remains(self) -> list[object]:
        # Not by listing keys: that leaves out what has expired and still takes room.
        keys = await self.client.dbsize()
        return [f"{keys} keys"] if keys else []

    async def litter(self) -> list[str]:
        clients = await self.client.client_list()
        return [f"a connection: {each}" for each in clients if each["cmd"] != "client|list"]
