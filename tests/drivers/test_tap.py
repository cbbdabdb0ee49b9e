"""The shared ring of newest records: what a reader gets from it, and when it must not use it."""

from __future__ import annotations

import asyncio

import pytest

from streamq.driver import ClosedError, Stored, Tap, TapBudget, within_bounds

OVERHEAD_BYTES = 256
FOREVER = 3_600.0


def record(number: int, size: int = 1) -> Stored:
    """Return a record whose position is a number."""
    return Stored(str(number), b"x" * size)


def filled(
    *numbers: int, max_bytes: int = 1_000_000, budget: TapBudget | None = None
) -> Tap[int, Stored]:
    """Return a tap that begins at 0 and has these records."""
    tap: Tap[int, Stored] = Tap(0, max_bytes=max_bytes, budget=budget)
    for number in numbers:
        tap.push(number, record(number))
    return tap


def numbers(records: list[Stored] | None) -> list[int] | None:
    """Return what :func:`record` was called with."""
    return None if records is None else [int(each.position) for each in records]


def later(seconds: float) -> float:
    """Return a time of the event loop."""
    return asyncio.get_running_loop().time() + seconds


@pytest.mark.parametrize(
    ("place", "expected"), [(0, [3, 5, 8]), (3, [5, 8]), (4, [5, 8]), (7, [8]), (8, []), (9, [])]
)
def test_a_reader_gets_the_records_after_its_place(place: int, expected: list[int]) -> None:
    """A record twice, or one left out, is what a reader would never notice."""
    assert numbers(filled(3, 5, 8).after(place, 10, 1_000)) == expected


def test_places_may_be_pairs() -> None:
    """Drivers that find records by epoch and index need no numbers of their own."""
    tap: Tap[tuple[int, int], Stored] = Tap((1, 4), max_bytes=1_000_000)
    tap.push((1, 5), record(1))
    tap.push((2, 0), record(2))
    assert tap.covers((1, 4))
    assert not tap.covers((1, 3))
    assert numbers(tap.after((1, 4), 10, 1_000)) == [1, 2]
    assert numbers(tap.after((1, 5), 10, 1_000)) == [2]
    assert tap.last == (2, 0)


@pytest.mark.parametrize(("place", "expected"), [(-1, False), (1, False), (2, True), (3, True)])
def test_only_a_reader_that_has_everything_waits_in_the_tap(place: int, *, expected: bool) -> None:
    """What a tap has already, another process may have deleted: the backend knows."""
    assert filled(1, 2).is_at_end(place) is expected


def test_nobody_waits_in_a_tap_that_is_out_of_use() -> None:
    """No record would come."""
    tap = filled(1)
    tap.retire()
    assert not tap.is_at_end(1)


def test_a_driver_chooses_the_overhead_of_a_record() -> None:
    """Small records must not fill a tap with an overhead that its driver does not have."""
    tap: Tap[int, Stored] = Tap(0, max_bytes=100, overhead_bytes=9)
    for number in range(1, 12):
        tap.push(number, record(number))
    assert (tap.floor, numbers(tap.after(1, 100, 1_000))) == (1, [*range(2, 12)])


def test_a_read_stays_within_both_bounds_but_makes_progress() -> None:
    """A record that is larger than the bound would block its reader for ever."""
    records = [record(1, 100), record(2, 100), record(3, 100)]
    assert within_bounds(records, 2, 1_000) == records[:2]
    assert within_bounds(records, 9, 250) == records[:2]
    assert within_bounds(records, 9, 10) == records[:1]
    assert within_bounds([], 9, 10) == []


def test_the_oldest_records_make_room_and_raise_the_floor() -> None:
    """A reader below the floor would miss what was dropped, so it is sent to the backend."""
    tap = filled(1, 2, 3, max_bytes=2 * (OVERHEAD_BYTES + 1))
    assert tap.floor == 1
    assert not tap.covers(0)
    assert tap.covers(1)
    assert numbers(tap.after(1, 10, 1_000)) == [2, 3]


def test_the_newest_record_stays_however_large_it_is() -> None:
    """Otherwise no reader of large records could ever be served from memory."""
    tap = filled(1, 2)
    tap.push(3, record(3, 2_000_000))
    assert numbers(tap.after(2, 10, 10)) == [3]
    assert tap.floor == 2


def test_taps_share_a_budget() -> None:
    """Many streams that are followed must not take more memory than one was allowed."""
    size = OVERHEAD_BYTES + 1
    budget = TapBudget(3 * size)
    first, second = filled(1, 2, budget=budget), filled(1, 2, 3, budget=budget)
    assert numbers(first.after(0, 10, 1_000)) == [1, 2]
    assert second.floor == 2, "a tap drops its own records and never those of another stream"
    assert budget.used == 3 * size
    first.retire()
    second.restart(7)
    assert budget.used == 0


def test_a_gap_that_was_proved_empty_lowers_the_floor() -> None:
    """A reader whose stream had nothing lately need not ask the backend again."""
    tap: Tap[int, Stored] = Tap(10, max_bytes=1_000)
    tap.extend(2, 9)
    assert tap.floor == 10, "between 9 and 10 there may be something"
    tap.extend(2, 12)
    assert tap.covers(2)
    tap.extend(5, 12)
    assert tap.covers(2), "what was proved once stays proved"


def test_restarting_forgets_everything() -> None:
    """A stream that was deleted and made again must not show records of the old one."""
    tap = filled(1, 2)
    tap.restart(0)
    assert tap.last == tap.floor == 0
    assert tap.after(0, 10, 1_000) == []


async def test_reading_waits_until_a_record_comes() -> None:
    """All readers of a stream see a record with the one request that brought it."""
    tap = filled()
    readers = [asyncio.create_task(tap.read(0, 10, 1_000, later(FOREVER))) for _ in range(3)]
    await asyncio.sleep(0)
    assert tap.is_waited_for
    tap.push(1, record(1))
    tap.wake()
    assert [numbers(await reader) for reader in readers] == [[1]] * 3
    assert not tap.is_waited_for


async def test_reading_ends_in_time_with_nothing() -> None:
    """A read has to return after its wait, and streamq calls it again."""
    assert await filled().read(0, 10, 1_000, later(0.001)) == []
    assert await filled().read(0, 10, 1_000, later(-1)) == []


async def test_a_reader_that_is_not_covered_is_sent_to_the_backend() -> None:
    """Before it waits, and when the tap is retired or restarted meanwhile."""
    assert await Tap(5, max_bytes=1_000).read(4, 10, 1_000, later(FOREVER)) is None
    for end in (lambda tap: tap.retire(), lambda tap: (tap.restart(7), tap.wake())):
        tap = filled(1)
        reader = asyncio.create_task(tap.read(1, 10, 1_000, later(FOREVER)))
        await asyncio.sleep(0)
        end(tap)
        assert await reader is None


async def test_an_error_is_raised_to_every_reader() -> None:
    """No reader may wait in silence for a connection that has failed."""
    tap = filled()
    readers = [asyncio.create_task(tap.read(0, 10, 1_000, later(FOREVER))) for _ in range(2)]
    await asyncio.sleep(0)
    tap.retire(ClosedError("closed"))
    for reader in readers:
        with pytest.raises(ClosedError, match="closed"):
            await reader
    assert not tap.covers(0)


async def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    """A tap that counts a reader that has gone would be followed for ever."""
    tap = filled()
    gone = asyncio.create_task(tap.read(0, 10, 1_000, later(FOREVER)))
    stays = asyncio.create_task(tap.read(0, 10, 1_000, later(FOREVER)))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert tap.is_waited_for
    tap.push(1, record(1))
    tap.wake()
    assert numbers(await stays) == [1]


async def test_a_tap_is_idle_when_no_reader_has_come_back() -> None:
    """Following has to stop some time after the last reader has gone, and not before."""
    now = asyncio.get_running_loop().time()
    tap: Tap[int, Stored] = Tap(0, max_bytes=1_000, now=now)
    assert not tap.is_idle(now + 3, 3.0)
    assert tap.is_idle(now + 4, 3.0)
    reader = asyncio.create_task(tap.read(0, 10, 1_000, later(FOREVER)))
    await asyncio.sleep(0)
    assert not tap.is_idle(now + 1_000, 3.0)
    tap.retire()
    await reader
