"""Explores every interleaving of writers that append to one stream, without S3.

The bucket is a dictionary of segments and one announcement. Writers append one batch after another,
as streamq's core does: a batch whose outcome is unknown is repeated until it is acknowledged, and a
writer that is fenced stops. At every moment any writer may take its next step. A limited number of
requests may fail: a request is not made, or loses its answer, or is refused though the number is
free, or reaches the bucket at any time after its writer has given it up.

Every state is visited once, however many paths lead to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias

from streamq.driver import Entry, FencedError, StreamId
from streamq_s3sns._known_streams import WriterMemory
from streamq_s3sns._segment import Checkpoint
from streamq_s3sns.writing import _append

STREAM = StreamId("t", "s")
TTL_MS = 1_000

Key: TypeAlias = tuple[int, int]

_EXCEPT = frozenset({"_entries", "_last_ttl_ms", "_losses", "_stream", "_ttl_ms"})
"""Members of an append that do not change, or do not matter as they are."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries of one append, and the time to live after it."""

    epoch: int
    indexes: tuple[int, ...]
    ttl_ms: int = TTL_MS

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries to append."""
        return tuple(Entry(self.epoch, index, b"") for index in self.indexes)

    @property
    def keys(self) -> frozenset[Key]:
        """Epoch and index of each entry."""
        return frozenset((self.epoch, index) for index in self.indexes)


@dataclass
class Writer:
    """A queue: its memory of the stream, and the batches that it still has to append.

    Attributes:
        epoch: Epoch of all batches.
        batches: The batches; the first one is being appended.
        memory: State after the last append.
        append: The append under way.
        is_superseded: Whether, when the append began, a newer epoch had the stream, and entries of
            the append were missing.
        is_fenced: Whether the writer has stopped.
    """

    epoch: int
    batches: tuple[Batch, ...]
    memory: WriterMemory = field(default_factory=WriterMemory)
    append: Any = None
    is_superseded: bool = False
    is_fenced: bool = False

    @property
    def has_stopped(self) -> bool:
        """Whether everything is acknowledged, or the writer is fenced."""
        return self.is_fenced or not self.batches

    def copy(self) -> Writer:
        """Return an independent copy."""
        made = Writer(self.epoch, self.batches, _copied(self.memory))
        made.append = None if self.append is None else _copied(self.append)
        made.is_superseded, made.is_fenced = self.is_superseded, self.is_fenced
        return made

    def state(self) -> tuple[object, ...]:
        """Return everything on which the writer's future depends."""
        machine: tuple[object, ...] = ()
        if (append := self.append) is not None:
            # More than one lost race is as good as any number of them.
            names = append.__slots__
            machine = tuple(getattr(append, name) for name in names if name not in _EXCEPT)
            machine += (min(append._losses, 2),)
        memory = self.memory.checkpoint, self.memory.rival
        return len(self.batches), memory, machine, self.is_superseded, self.is_fenced


def _copied(source: Any) -> Any:
    """Return a copy of something that has slots with immutable values."""
    made = object.__new__(type(source))
    for name in source.__slots__:
        setattr(made, name, getattr(source, name))
    return made


@dataclass
class World:
    """A bucket, its writers, and the requests that are still on their way.

    Attributes:
        writers: The writers.
        faults: How many more requests may fail.
        expiries: How often the stream may still expire.
        now_ms: The server's time.
        segments: Checkpoint and entries of every segment, by number.
        announced: The announced epoch; 0 if there is none.
        late: Writes that their writers have given up, and that may still reach the bucket.
        acknowledged: Entries of the stream whose append has succeeded.
        has_failed: Whether a request has failed.
        expired_through: Number of the last segment of an expired stream.
    """

    writers: list[Writer]
    faults: int = 0
    expiries: int = 0
    now_ms: int = 0
    segments: dict[int, tuple[Checkpoint, tuple[Key, ...]]] = field(default_factory=dict)
    announced: int = 0
    late: tuple[Any, ...] = ()
    acknowledged: frozenset[Key] = frozenset()
    has_failed: bool = False
    expired_through: int = 0

    def copy(self) -> World:
        """Return an independent copy."""
        return World(
            [each.copy() for each in self.writers],
            *(self.faults, self.expiries, self.now_ms, dict(self.segments), self.announced),
            *(self.late, self.acknowledged, self.has_failed, self.expired_through),
        )

    def state(self) -> tuple[object, ...]:
        """Return everything on which the future depends."""
        return (
            tuple(each.state() for each in self.writers),
            tuple(self.segments.items()),
            *(self.announced, self.late, self.acknowledged),
            *(self.faults, self.has_failed, self.now_ms, self.expired_through),
        )

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint in the bucket."""
        return self.segments[len(self.segments)][0] if self.segments else None

    @property
    def visible(self) -> list[Key]:
        """The entries that a reader gets, in order."""
        newest = self.newest
        if newest is None or newest.expires <= self.now_ms:
            return []
        numbers = range(newest.begin, newest.number + 1)
        return [key for number in numbers for key in self.segments[number][1]]

    def put(self, write: Any) -> bool:
        """Store a segment if its number is free; return whether it was."""
        checkpoint = write.checkpoint
        if checkpoint.number in self.segments:
            return False
        assert checkpoint.number == len(self.segments) + 1, "a number was left out"
        keys = tuple((entry.epoch, entry.index) for entry in write.entries)
        self.segments[checkpoint.number] = checkpoint, keys
        return True

    def check(self) -> None:
        """Check what is promised at every moment."""
        visible = self.visible
        assert visible == sorted(set(visible)), "an entry is stored twice, or after a newer one"
        assert self.acknowledged <= set(visible), "an acknowledged entry is lost"
        newest = self.newest
        if visible and newest is not None:
            assert newest.begin > self.expired_through, "an expired stream has come back"
            assert newest.records == len(visible), "the checkpoint has another number of entries"
            assert newest.newest == visible[-1], "the checkpoint has another newest entry"


class Explorer:
    """Visits all states that can be reached from a world.

    Attributes:
        states: Number of states visited.
        endings: Number of states in which every writer has stopped.
        events: How often each kind of event was tried.
    """

    def __init__(self, module: ModuleType = _append) -> None:
        self.states = 0
        self.endings = 0
        self.events: Counter[str] = Counter()
        self._module: Any = module

    def run(self, world: World) -> None:
        """Visit every state.

        Raises:
            AssertionError: A promise is broken.
        """
        start = world.state()
        visited, on_path = {start}, {start}
        path = [(start, self._visit(world))]
        while path:
            state, following = path[-1]
            found = next(following, None)
            if found is None:
                path.pop()
                on_path.discard(state)
                continue
            event, reached = found
            self.events[event] += 1
            after = reached.state()
            assert after not in on_path, "an append repeats its steps for ever"
            if after not in visited:
                visited.add(after)
                on_path.add(after)
                path.append((after, self._visit(reached)))

    def _visit(self, world: World) -> Iterator[tuple[str, World]]:
        """Check a state, and iterate over the states that follow."""
        self.states += 1
        world.check()
        if all(each.has_stopped for each in world.writers):
            self.endings += 1
            self._check_ending(world)
        for i, writer in enumerate(world.writers):
            if writer.has_stopped:
                continue
            if writer.append is None:
                yield from self._begin(world, i)
            else:
                yield from self._continue(world, i)
        for i, write in enumerate(world.late):
            made = world.copy()
            made.late = world.late[:i] + world.late[i + 1 :]
            made.put(write)
            yield "a write arrives late", made
        if world.expiries:
            made = world.copy()
            made.expiries -= 1
            made.now_ms += 100 * TTL_MS
            made.acknowledged = frozenset()
            made.expired_through = len(made.segments)
            for writer in made.writers:
                writer.is_superseded = False
            yield "the stream expires", made

    def _check_ending(self, world: World) -> None:
        newest = max(each.epoch for each in world.writers)
        for writer in world.writers:
            assert not (writer.is_fenced and writer.epoch == newest), "the newest epoch is fenced"
        if world.announced and not world.has_failed:
            # A third attempt may have come in between: then an empty object is left.
            fenced = {each.epoch for each in world.writers if each.is_fenced}
            assert world.announced in fenced, "an announcement is left"

    # -- the steps of writers --------------------------------------------------------------------

    def _begin(self, world: World, i: int) -> Iterator[tuple[str, World]]:
        remembered = world.writers[i].memory.recent(0)
        for checkpoint in dict.fromkeys((remembered, None)):  # a memory may be dropped at any time
            made = world.copy()
            writer = made.writers[i]
            batch = writer.batches[0]
            visible = made.visible
            is_newer = any(epoch > batch.epoch for epoch, _ in visible)
            # Entries that are stored already are acknowledged: they come before the newer epoch's.
            writer.is_superseded = is_newer and not batch.keys <= set(visible)
            try:
                writer.append = self._module.Append(
                    STREAM,
                    batch.entries,
                    ttl_ms=TTL_MS,
                    last_ttl_ms=batch.ttl_ms,
                    remembered=checkpoint,
                    rival=writer.memory.rival,
                    now_ms=made.now_ms,
                )
            except FencedError:
                self._fence(made, writer)
            yield "an append begins", made

    def _continue(self, world: World, i: int) -> Iterator[tuple[str, World]]:
        module, step = self._module, world.writers[i].append.step
        name = type(step).__name__
        made = world.copy()
        self._report(made, made.writers[i], step, self._request(made, step))
        yield name, made
        if isinstance(step, module.Write) and world.announced > world.writers[i].memory.rival:
            made = world.copy()
            made.writers[i].memory.announced(made.announced)
            self._report(made, made.writers[i], step, self._request(made, step))
            yield f"{name}, and an announcement is found", made
        if not world.faults or isinstance(step, module.Pause | module.Appended):
            return
        yield f"{name} fails", self._given_up(world, i)
        if isinstance(step, module.Write | module.Announce | module.Withdraw):
            made = self._given_up(world, i)
            self._request(made, step)
            yield f"{name} loses its answer", made
        if isinstance(step, module.Write):
            made = self._given_up(world, i)
            made.late = (*made.late, step)
            yield f"{name} is delayed", made
            made = world.copy()
            made.faults -= 1
            made.has_failed = True
            self._report(made, made.writers[i], step, False)
            yield f"{name} is refused without a winner", made

    def _given_up(self, world: World, i: int) -> World:
        """Return the world after the writer's request has failed."""
        made = world.copy()
        made.faults -= 1
        made.has_failed = True
        made.writers[i].append = None
        return made

    def _request(self, world: World, step: Any) -> Any:
        """Make a request of the bucket; return its result."""
        module = self._module
        match step:
            case module.FindEnd():
                return world.newest
            case module.Write():
                return world.put(step)
            case module.ReadWinner(number):
                return world.segments[number][0] if number in world.segments else None
            case module.Announce(epoch):
                world.announced = epoch
            case module.Withdraw():
                world.announced = 0
        return None

    def _report(self, world: World, writer: Writer, step: Any, result: Any) -> None:
        """Report the result of a step to the append."""
        module, append, now_ms = self._module, writer.append, world.now_ms
        try:
            match step:
                case module.FindEnd():
                    append.found_end(result, now_ms)
                case module.Write():
                    append.wrote(result, now_ms)
                case module.ReadWinner():
                    append.read_winner(result, now_ms)
                case module.Announce():
                    append.announced(now_ms)
                case module.Pause():
                    append.paused(now_ms)
                case module.Withdraw():
                    append.withdrew()
                case module.Appended(checkpoint):
                    self._acknowledge(world, writer, checkpoint)
        except FencedError:
            self._fence(world, writer)

    def _acknowledge(self, world: World, writer: Writer, checkpoint: Checkpoint) -> None:
        batch = writer.batches[0]
        assert not writer.is_superseded, "a superseded writer does not learn that it is fenced"
        assert checkpoint.ttl == batch.ttl_ms, "the time to live is another one"
        writer.memory.appended(checkpoint, 0)
        writer.batches = writer.batches[1:]
        writer.append = None
        if checkpoint.expires > world.now_ms:
            world.acknowledged |= batch.keys

    def _fence(self, world: World, writer: Writer) -> None:
        newer = max([0, world.announced, writer.memory.rival, *(key[0] for key in world.visible)])
        assert newer > writer.epoch, "a writer is fenced though no newer epoch has come"
        writer.is_fenced = True
        writer.append = None
