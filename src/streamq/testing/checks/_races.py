"""Checks of races: whatever other calls do while one is under way, each has its whole effect.

Each check stops a call at its first await, at its second and so on, and makes the others there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from streamq.driver import START, ChunkQueue, FencedError, StreamId, StreamNotFoundError
from streamq.testing._interleaving import Interleaved, interleave

from ._base import Checks
from ._conditions import requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._sentences import TWO_STEPS
from ._verdicts import holds, one_of, same, same_records

T = TypeVar("T")

_MOST_AWAITS = 20  # a read that looks again and again has no end of them
_BEGINS_SECONDS = 0.1
_LOOKS_SECONDS = 0.03
_MIXED = "the answer is put together from requests between which the stream has changed"
_BEGUN = pytest.mark.parametrize("begun", [(), (b"0",)], ids=["first append", "later append"])


class Race:
    """One round of a race: the call is stopped at one await.

    Attributes:
        at: Which await, from 1.
        was_held: Whether the call has reached it.
    """

    def __init__(self, at: int, patience: float) -> None:
        self.at = at
        self.was_held = False
        self._patience = patience

    async def run(
        self,
        call: Coroutine[Any, Any, T],
        meanwhile: Callable[[], Awaitable[object]],
        *,
        waits: bool = False,
    ) -> Interleaved[T]:
        """Stop the call, make the others, and let it go on.

        Args:
            call: The call.
            meanwhile: Makes the others.
            waits: Whether the call waits for the others before its last await.
        """
        reach = _BEGINS_SECONDS if waits else self._patience
        cause = "it has missed what they did, or each waits for the other"
        async with within(self._patience, f"a call that {self}", cause=cause):
            outcome = await interleave(call, self.at, meanwhile, reach_seconds=reach)
        self.was_held = outcome.was_held
        return outcome

    def __str__(self) -> str:
        return f"was stopped at its {self.at}. await, where other calls were made,"


class RaceChecks(Checks):
    """A call has its whole effect, whatever other calls do at each of its awaits."""

    group = "races"

    async def at_every_await(self, run: Callable[[Race], Awaitable[None]]) -> None:
        """Run a race for each await of a call."""
        for at in range(1, _MOST_AWAITS + 1):
            race = Race(at, self.patience)
            await run(race)
            if not race.was_held:
                return

    async def stored(self, queue: ChunkQueue, stream: StreamId) -> list[bytes]:
        """Return all that can be read of a stream now."""
        return data_of(await self.read(queue, stream, max_wait=0))

    @promises("ChunkQueue.read", "The wait ends as soon as there is one record.")
    @requires("replay")
    @pytest.mark.parametrize("own", [True, False], ids=["same connection", "another connection"])
    async def test_append_is_not_missed_wherever_a_read_is(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, own: bool
    ) -> None:
        """A read that looks before it listens sleeps through the record that comes in between."""
        position = START
        writer = queue if own else other

        async def run(race: Race) -> None:
            nonlocal position
            read = self.read(queue, stream, position, max_wait=4 * self.patience)
            record = entries(b"%d" % race.at, first=race.at)
            outcome = await race.run(read, partial(writer.append, stream, record), waits=True)
            found = outcome.value()
            same_records(data_of(found), [b"%d" % race.at], f"the records of a read that {race}")
            position = found[-1].position

        await self.at_every_await(run)

    @promises(
        "ChunkQueue.append",
        "Store entries, in order, durably as far as declared, and make blocked readers see them.",
    )
    @requires("replay", "fan_out")
    async def test_blocked_readers_get_a_record_that_is_stored_late(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A reader that is woken before the record is stored finds nothing, and sleeps again."""
        await queue.append(stream, entries(b"0"))
        position = (await self.read(queue, stream))[-1].position

        async def run(race: Race) -> None:
            nonlocal position
            waiting = [
                self.begin(self.read(each, stream, position, max_wait=4 * self.patience))
                for each in (queue, other)
            ]
            await asyncio.sleep(_LOOKS_SECONDS)  # nothing tells when a reader waits
            append = queue.append(stream, entries(b"%d" % race.at, first=race.at))
            # Long enough for a reader that was woken to look, and to find nothing.
            outcome = await race.run(append, partial(asyncio.sleep, _LOOKS_SECONDS))
            outcome.value()
            _, late = await asyncio.wait(waiting, timeout=self.patience)
            holds(
                not late,
                f"two reads that wait, {self.patience:g} s after an append that {race}",
                expected="both have returned",
                seen=f"{len(late)} of them still wait",
                cause="the readers are woken before the record is stored",
            )
            for each in waiting:
                what = f"what a read returned that waited for an append that {race}"
                same_records(data_of(each.result()), [b"%d" % race.at], what)
            position = waiting[0].result()[-1].position

        await self.at_every_await(run)

    @promises("ChunkQueue.append", "If the newest entry has a newer epoch, nothing older is added")
    @requires("fenced", "replay", "ordered")
    @_BEGUN
    async def test_takeover_within_an_append_is_clean(
        self, queue: ChunkQueue, other: ChunkQueue, begun: tuple[bytes, ...]
    ) -> None:
        """Two attempts race when a worker was thought dead; their records must not be blended."""

        async def run(race: Race) -> None:
            stream = new_stream()
            if begun:
                await queue.append(stream, entries(*begun))
            append = queue.append(stream, entries(b"1", b"2", first=len(begun)))
            takeover = partial(other.append, stream, entries(b"new", epoch=2))
            outcome = await race.run(append, takeover)
            found = await self.stored(other, stream)
            whole = [*begun, b"1", b"2", b"new"]
            if outcome.error is None:
                same_records(found, whole, f"the records, when an append that {race} succeeded")
                return
            holds(
                isinstance(outcome.error, FencedError),
                f"an append that {race}",
                expected="it succeeds, or raises FencedError",
                seen=outcome.error,
            )
            prefixes = [whole[:count] for count in range(len(begun), len(whole))]
            one_of(
                found,
                [[*prefix, b"new"] for prefix in prefixes],
                f"the records, when an append that {race} was fenced",
                cause=TWO_STEPS,
            )

        await self.at_every_await(run)

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped",
    )
    @requires("fenced", "replay", "ordered")
    @_BEGUN
    async def test_repeat_within_the_append_adds_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, begun: tuple[bytes, ...]
    ) -> None:
        """A call whose deadline has passed may go on at the server while its repeat is made."""

        async def run(race: Race) -> None:
            stream = new_stream()
            if begun:
                await other.append(stream, entries(*begun))
            batch = entries(b"1", b"2", first=len(begun))
            repeat = partial(other.append, stream, batch)
            (await race.run(queue.append(stream, batch), repeat)).value()
            found = await self.stored(other, stream)
            what = f"the records, when an append that {race} was repeated there"
            same_records(found, [*begun, b"1", b"2"], what)

        await self.at_every_await(run)

    @promises("Entry", "entries of one epoch have a growing index")
    @requires("fenced", "replay", "ordered")
    @pytest.mark.parametrize("own", [True, False], ids=["same connection", "another connection"])
    async def test_two_appends_of_one_epoch_keep_the_order_of_indexes(
        self, queue: ChunkQueue, other: ChunkQueue, own: bool
    ) -> None:
        """Without one step for looking and storing, a late record comes behind a newer one."""
        writer = queue if own else other

        async def run(race: Race) -> None:
            stream = new_stream()
            append = queue.append(stream, entries(b"0", b"1"))
            later = partial(writer.append, stream, entries(b"2", b"3", first=2))
            (await race.run(append, later)).value()
            found = await self.stored(other, stream)
            one_of(
                found,
                [[b"2", b"3"], [b"0", b"2", b"3"], [b"1", b"2", b"3"], [b"0", b"1", b"2", b"3"]],
                f"the records, when an append of 0 and 1 {race} one of 2 and 3",
                cause="looking for the newest entry and storing are two steps",
            )

        await self.at_every_await(run)

    @promises("ChunkQueue.delete", "Remove a stream and everything in it")
    @requires("replay", "ordered")
    @pytest.mark.parametrize("stopped", ["append", "delete"])
    async def test_delete_and_append_at_the_same_time_leave_a_sound_stream(
        self, queue: ChunkQueue, other: ChunkQueue, stopped: str
    ) -> None:
        """A user deletes a stream whose producer still runs: nothing of before may come back."""

        async def run(race: Race) -> None:
            stream = new_stream()
            await queue.append(stream, entries(b"0", b"1"))

            async def append() -> None:
                try:
                    await queue.append(stream, entries(b"2", b"3", first=2))
                except StreamNotFoundError as exc:
                    holds(
                        not queue.capabilities.fenced,
                        "an append to a stream that is deleted meanwhile",
                        expected="it stores its entries: only backends that do not fence may raise",
                        seen=exc,
                    )

            async def delete() -> None:
                await other.delete(stream)

            calls = (append, delete) if stopped == "append" else (delete, append)
            (await race.run(calls[0](), calls[1])).value()
            found = await self.stored(other, stream)
            what = f"the records, when the {stopped} {race}"
            cause = "records of before the delete come back, or are left"
            one_of(found, [[], [b"3"], [b"2", b"3"]], what, cause=cause)
            what = f"whether the stream is gone for describe(), when the {stopped} {race}"
            cause = "describe() and read() do not agree"
            same(await self.is_gone(other, stream), not found, what, cause=cause)
            await queue.append(stream, entries(b"next", epoch=2))
            for each in (queue, other):
                what = f"the records after one more append, when the {stopped} {race}"
                same_records(await self.stored(each, stream), [*found, b"next"], what)

        await self.at_every_await(run)

    @promises(
        "ChunkQueue.sweep",
        "A stream that has not expired is not touched, even if it is appended to meanwhile.",
    )
    @requires("replay")
    async def test_sweep_within_an_append_touches_nothing(
        self, queue: ChunkQueue, other: ChunkQueue
    ) -> None:
        """A stream that is only half begun looks like one of which a sweep has left the rest."""
        if type(other).sweep is ChunkQueue.sweep:
            pytest.skip("the backend removes expired streams by itself")

        async def run(race: Race) -> None:
            stream = new_stream()
            append = queue.append(stream, entries(b"0", b"1"))
            (await race.run(append, other.sweep)).value()
            found = await self.stored(other, stream)
            what = f"the records of a stream whose first append {race} a sweep"
            same_records(found, [b"0", b"1"], what, cause="the sweep takes no lock")

        await self.at_every_await(run)

    @promises("ChunkQueue.read", "Return stored records after a position, oldest first")
    @requires("replay", "ordered")
    async def test_read_within_which_a_stream_begins_again_mixes_nothing_up(
        self, queue: ChunkQueue, other: ChunkQueue
    ) -> None:
        """A reader may see the old stream and then the new one, as in two reads, and no mixture."""
        old, new = numbered(3, "old"), numbered(2, "new")

        async def run(race: Race) -> None:
            stream = new_stream()
            await queue.append(stream, entries(*old))

            async def begin_again() -> None:
                await other.delete(stream)
                await other.append(stream, entries(*new, epoch=2))

            read = self.read(queue, stream, max_wait=0)
            found = data_of((await race.run(read, begin_again)).value())
            allowed = [old[:i] + new[:j] for i in range(4) for j in range(3)]
            one_of(found, allowed, f"the records of a read that {race}", cause=_MIXED)
            left = await self.stored(queue, stream)
            same_records(left, new, "the records of a stream that was deleted and began anew")

        await self.at_every_await(run)

    @promises(
        "StreamInfo.last", "The newest records, newest first, as many as were requested and exist."
    )
    @requires("replay", "ordered")
    @pytest.mark.parametrize("change", ["append", "delete"])
    async def test_description_within_which_a_stream_changes_is_of_one_moment(
        self, queue: ChunkQueue, other: ChunkQueue, change: str
    ) -> None:
        """A takeover continues after the newest records: none may be missing between them."""

        async def run(race: Race) -> None:
            stream = new_stream()
            await queue.append(stream, entries(b"0", b"1", b"2"))
            append = partial(other.append, stream, entries(b"3", b"4", first=3))
            meanwhile = append if change == "append" else partial(other.delete, stream)
            outcome = await race.run(queue.describe(stream, last=4), meanwhile)
            if change == "delete" and isinstance(outcome.error, StreamNotFoundError):
                return
            found = data_of(outcome.value().last)
            allowed = [[b"2", b"1", b"0"]]
            if change == "append":
                allowed += [[b"3", b"2", b"1", b"0"], [b"4", b"3", b"2", b"1"]]
            one_of(found, allowed, f"the newest records of a description that {race}", cause=_MIXED)

        await self.at_every_await(run)
