"""Writers, takeovers, packs, expiry, deletion and readers in any order, against a simple model.

The model knows what was stored in each life of a stream: from its first entry until it is deleted
or expires. Packs are written in the background at the same time. A seed therefore decides the
operations, and not which of them each pack meets.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from s3sns_bucket import BUCKET
from streamq import BackendUnavailableError, FencedError
from streamq.driver import Entry, StreamId, StreamNotFoundError
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsSettings, _packing
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._segment import PACK_METADATA, decode_entries
from streamq_s3sns.requests._server_clock import ServerClock

STEPS = 100
LONG = timedelta(hours=10)
Key = tuple[int, int]


@dataclass
class Life:
    """A stream from its beginning to its end."""

    number: int
    keys: list[Key] = field(default_factory=list)
    is_trimmed: bool = False


@dataclass
class Place:
    """A position that a reader got, and the entry and life that it comes after."""

    position: str
    life: Life
    key: Key


class Model:
    """One stream: the operations on it, and the entries that readers have to get."""

    def __init__(self, world: World, stream: StreamId) -> None:
        self.world, self.stream, self.random = world, stream, world.random
        self.life = Life(1)
        self.epoch = 0
        self.writers: list[tuple[S3SnsQueue, int]] = []
        self.places: list[Place] = []

    @property
    def directory(self) -> str:
        return self.world.queues[0]._keys.directory(self.stream)

    def data(self, key: Key) -> bytes:
        """Return the data of an entry; a new life may have the same data, or other data."""
        size = 300 if key[1] % 7 == 3 else 0
        return b"%d-%d-%d" % (self.life.number, *key) + bytes(size)

    async def take_over(self) -> None:
        """Begin a new attempt, in a queue that writes already or in one that never has."""
        self.epoch += 1
        queue = self.random.choice(self.world.queues)
        self.writers = [each for each in self.writers if each[0] is not queue]
        self.writers.append((queue, self.epoch))
        await self.append(queue, self.epoch, 1)

    async def write(self) -> None:
        if len(self.life.keys) > 80:
            await self.delete()
        if not self.writers:
            await self.take_over()
            return
        queue, epoch = self.writers[-1]
        for _ in range(self.random.randrange(1, 5)):
            await self.append(queue, epoch, self.random.choice((1, 1, 1, 3)))

    async def append(self, queue: S3SnsQueue, epoch: int, count: int) -> None:
        """Append the next entries, and repeat that until it is acknowledged."""
        ours = [index for each, index in self.life.keys if each == epoch]
        first = max(ours, default=-1) + 1
        keys = [(epoch, first + i) for i in range(count)]
        ttl = LONG if self.random.random() < 0.04 else None
        while True:
            try:
                await queue.append(
                    self.stream, [Entry(*key, self.data(key)) for key in keys], ttl=ttl
                )
                break
            except BackendUnavailableError:
                continue
        self.life.keys += keys

    async def write_stale(self) -> None:
        """Check that an attempt that has been superseded stores nothing more."""
        if len(self.writers) > 1:
            queue, epoch = self.writers[-2]
            with pytest.raises(FencedError):
                await queue.append(self.stream, [Entry(epoch, 10**6, b"stale")])
            del self.writers[-2]

    async def touch(self) -> None:
        """Repeat an append with another time to live, which writes an empty segment."""
        if self.writers and self.life.keys:
            queue = self.writers[-1][0]
            key = self.life.keys[-1]
            hours = timedelta(hours=self.random.randrange(2, 20))
            await self.world.persist(
                lambda: queue.append(self.stream, [Entry(*key, self.data(key))], ttl=hours)
            )

    async def finish(self) -> None:
        """Pack what is held as it is."""
        queue = self.random.choice(self.world.queues)
        queue._packer.finish(self.directory)

    async def delete(self) -> None:
        """Delete the stream, also from the queues' memory; the next one may have the same bytes."""
        queue = self.random.choice(self.world.queues)
        await queue.delete(self.stream)
        for each in self.world.queues:
            with each._known.use(self.directory) as known:
                known.forget()
        self.begin_again(0 if self.random.random() < 0.5 else self.epoch)

    def begin_again(self, epoch: int) -> None:
        number = self.life.number + (self.random.random() < 0.5)
        self.life, self.epoch, self.writers = Life(number), epoch, []

    async def trim(self) -> None:
        """Remove some of the oldest segments, as a lifecycle rule does days later."""
        for queue in self.world.queues:
            with queue._known.use(self.directory) as known:
                known.writer.appended_at = float("-inf")
        keys = self.world.keys(self.directory)[1:]  # the newest one stays
        oldest = keys[len(keys) // 2 :]
        for key in self.random.sample(oldest, len(oldest) // 2):
            self.world.s3.delete_object(Bucket=BUCKET, Key=key)
            self.life.is_trimmed = True

    def left(self) -> set[Key]:
        """Return the entries that are stored in segments of their own."""
        found: set[Key] = set()
        for key in self.world.keys(self.directory):
            answer = self.world.s3.get_object(Bucket=BUCKET, Key=key)
            entries = decode_entries(answer["Body"].read(), key)
            pack = answer["Metadata"].get(PACK_METADATA)
            own = int(pack.split()[2]) if pack else len(entries)
            found |= {(entry.epoch, entry.index) for entry in entries[:own]}
        return found

    async def read(self) -> None:
        """Read from somewhere to the end in pages of any size."""
        place = self.random.choice([*self.places, None, None]) if self.places else None
        life = self.life
        position, after = (place.position, place.key) if place else ("", (0, -1))
        is_strange = place is not None and place.life is not life
        if is_strange:
            after = (0, -1)
        expected = [key for key in life.keys if key > after]
        found: list[Key] = []
        while True:
            queue = self.random.choice(self.world.queues)
            records = self.random.choice((1, 2, 3, 7, 100))
            size = self.random.choice((1, 400, 10**6))
            lost = self.world.lost
            try:
                page = await queue.read(
                    self.stream, position, max_records=records, max_bytes=size, max_wait=0
                )
            except BackendUnavailableError:
                continue
            if not page:
                break
            assert len(page) <= records
            for each in page:
                _, epoch, index = map(int, each.data.rstrip(b"\0").split(b"-"))
                key = epoch, index
                found.append(key)
                assert each.data == self.data(key), (each.data, self.life.number)
            if not life.is_trimmed and not is_strange and self.world.lost == lost:
                taken = sum(len(each.data) for each in page)
                rest = [len(self.data(key)) for key in expected[len(found) :][:1]]
                is_full = len(page) == records or any(taken + each > size for each in rest)
                assert is_full or not rest, "a page leaves out nothing that fits"
            position = page[-1].position
            self.places.append(Place(position, life, found[-1]))
            if self.random.random() < 0.2:
                await asyncio.sleep(0)
        if life.is_trimmed:
            assert found == sorted(set(found)), (place, found)
            assert set(found) <= set(expected), (place, found)
            missing = self.left() & set(expected) - set(found)
            assert is_strange or not missing, (place, found, missing)
        elif is_strange:
            # A position of an earlier life may be in the middle of this one.
            assert found == expected[len(expected) - len(found) :], (place, found)
        else:
            assert found == expected, (place, found)
        del self.places[:-40]

    async def describe(self) -> None:
        """Request the newest records, and keep their positions to read on from."""
        if self.life.is_trimmed:
            return
        queue = self.random.choice(self.world.queues)
        last = self.random.randrange(1, 12)
        if not self.life.keys:
            with pytest.raises(StreamNotFoundError):
                await self.world.persist(lambda: queue.describe(self.stream, last=last))
            return
        info = await self.world.persist(lambda: queue.describe(self.stream, last=last))
        keys = self.life.keys[::-1][:last]
        assert [each.data for each in info.last] == [self.data(key) for key in keys]
        assert info.records == len(self.life.keys)
        self.places += [
            Place(each.position, self.life, key) for each, key in zip(info.last, keys, strict=True)
        ]


class World:
    """Several queues, several streams, one clock."""

    def __init__(
        self, seed: int, queues: list[S3SnsQueue], s3: Any, tenant: str, streams: int = 3
    ) -> None:
        self.random, self.faults = random.Random(seed), random.Random(seed)
        self.queues, self.s3 = queues, s3
        self.hours = 0.0
        self.lost = 0
        self.models = [Model(self, StreamId(tenant, f"s{i}")) for i in range(streams)]
        for queue in queues:
            queue._store.bucket.client = Unreliable(queue._store.bucket.client, self)

    def keys(self, directory: str) -> list[str]:
        answer = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=directory)
        return [each["Key"] for each in answer.get("Contents", ()) if each["Key"][-1].isdigit()]

    async def persist(self, call: Any) -> Any:
        while True:
            try:
                return await call()
            except BackendUnavailableError:
                continue

    async def settle(self) -> None:
        """Wait until every pack under way is written."""
        for queue in self.queues:
            while queue._packer._tasks:
                await asyncio.wait(queue._packer._tasks)

    async def expire(self) -> None:
        """Let days pass, so that every stream expires."""
        await self.settle()
        self.hours += 100
        for model in self.models:
            model.begin_again(0 if self.random.random() < 0.5 else model.epoch)
        if self.random.random() < 0.5:
            await self.persist(self.random.choice(self.queues).sweep)

    async def step(self) -> str:
        model = self.random.choice(self.models)
        what = self.random.choices(
            [
                *(model.write, model.take_over, model.write_stale, model.touch, model.finish),
                *(model.read, model.describe, model.delete, model.trim),
                *(self.settle, self.expire),
            ],
            [30, 3, 3, 2, 3, 20, 5, 1.2, 1, 5, 0.4],
        )[0]
        await what()
        return what.__name__


class Unreliable:
    """A client that loses some answers after the server has executed the request."""

    def __init__(self, client: Any, world: World) -> None:
        self.client, self.world = client, world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if name not in ("put_object", "get_object"):
            return method

        async def call(**arguments: Any) -> Any:
            # Packs use no random numbers, because the seed does not decide when they run.
            is_lost = "IfMatch" not in arguments and self.world.faults.random() < 0.02
            answer = await method(**arguments)
            if is_lost:
                self.world.lost += 1
                raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
            return answer

        return call


@pytest.mark.parametrize("seed", [1, 12, 20])
async def test_nothing_is_lost_repeated_or_reordered_whatever_is_packed(
    open_queue: OpenQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Groups are as small as possible, so that every reader meets many of them in every state."""
    monkeypatch.setattr(_packing, "GROUP_SEGMENTS", 2 + seed % 3)
    monkeypatch.setattr(_packing, "_FEWEST", 2)
    queues = [await open_queue() for _ in range(3)]
    world = World(seed, queues, s3, stream.tenant)  # type: ignore[arg-type]
    now_ms = ServerClock.now_ms
    monkeypatch.setattr(
        ServerClock, "now_ms", lambda self: now_ms(self) + int(world.hours * 3_600_000)
    )
    steps: list[str] = []
    try:
        for _ in range(STEPS):
            steps.append(await world.step())
    except BaseException:
        logging.getLogger(__name__).error("seed %d, step %d: %s", seed, len(steps), steps[-40:])
        raise
    await world.settle()
