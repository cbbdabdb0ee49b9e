"""The requests of one append in each situation, without S3."""

from __future__ import annotations

import pytest

from streamq import BackendUnavailableError, FencedError
from streamq.driver import Entry, StreamId
from streamq_s3sns._known_streams import WriterMemory
from streamq_s3sns._segment import Checkpoint
from streamq_s3sns.writing._append import (
    Announce,
    Append,
    Done,
    FindEnd,
    Pause,
    ReadWinner,
    Step,
    Withdraw,
    Write,
)

NOW, TTL = 1_000_000, 60_000


def checkpoint(number: int, epoch: int, index: int, *, expires: int = NOW + TTL) -> Checkpoint:
    """Return the state of a stream with one entry of a byte in each segment."""
    return Checkpoint(number, epoch, index, 1, expires, TTL, number, number)


def append(
    epoch: int, index: int, *, remembered: Checkpoint | None = None, rival: int = 0
) -> Append:
    """Return an append of one entry."""
    return Append(
        StreamId("t", "s"),
        [Entry(epoch, index, b"x")],
        ttl_ms=TTL,
        last_ttl_ms=TTL,
        remembered=remembered,
        rival=rival,
        now_ms=NOW,
    )


def step(of: Append) -> Step:
    """Return the next step of an append."""
    return of.step


def written(step: object) -> Checkpoint:
    """Return the checkpoint of a write."""
    assert isinstance(step, Write)
    return step.checkpoint


def test_append_after_the_one_before_is_one_request() -> None:
    """Each request costs money: a writer that knows the end of its stream makes one."""
    following = append(1, 1, remembered=checkpoint(1, 1, 0))
    assert written(following.step) == checkpoint(2, 1, 1)
    following.wrote(True, NOW)
    assert step(following) == Done(checkpoint(2, 1, 1))


def test_first_append_finds_the_end() -> None:
    """A new attempt does not know what the one before has stored."""
    first = append(2, 0)
    assert step(first) == FindEnd()
    first.found_end(checkpoint(7, 1, 6), NOW)
    assert written(first.step) == checkpoint(8, 2, 0)


@pytest.mark.parametrize(
    "remembered",
    [
        checkpoint(3, 2, 0),  # of a newer attempt in the same process
        checkpoint(3, 1, 5),  # with the entry
        checkpoint(3, 1, 0, expires=NOW),  # expired
    ],
)
def test_memory_alone_decides_nothing(remembered: Checkpoint) -> None:
    """The stream may have been deleted and written anew since: only the bucket knows."""
    assert step(append(1, 5, remembered=remembered)) == FindEnd()


def test_lost_answer_is_found_in_the_own_segment() -> None:
    """The repeat of an append whose answer was lost must not store its entries again."""
    repeat = append(1, 1, remembered=checkpoint(1, 1, 0))
    repeat.wrote(False, NOW)
    assert step(repeat) == ReadWinner(2)
    repeat.read_winner(checkpoint(2, 1, 1), NOW)
    assert step(repeat) == Done(checkpoint(2, 1, 1))


def test_loser_against_a_newer_epoch_is_fenced() -> None:
    """A stale attempt stops at its first append after the takeover."""
    stale = append(1, 1, remembered=checkpoint(1, 1, 0))
    stale.wrote(False, NOW)
    with pytest.raises(FencedError, match="epoch 2 has taken over"):
        stale.read_winner(checkpoint(2, 2, 0), NOW)


def test_loser_against_an_older_epoch_announces_itself_and_takes_that_back() -> None:
    """A stale attempt that never pauses must not keep its successor out."""
    newcomer = append(2, 0)
    newcomer.found_end(checkpoint(1, 1, 0), NOW)
    newcomer.wrote(False, NOW)
    newcomer.read_winner(checkpoint(2, 1, 1), NOW)
    assert step(newcomer) == Announce(2)
    newcomer.announced(NOW)
    newcomer.wrote(False, NOW)
    newcomer.read_winner(checkpoint(3, 1, 2), NOW)
    assert step(newcomer) == Pause()  # announced once, and not in a hurry from the second loss on
    newcomer.paused(NOW)
    newcomer.wrote(True, NOW)
    assert step(newcomer) == Withdraw()
    newcomer.withdrew()
    assert step(newcomer) == Done(checkpoint(4, 2, 0))


def test_announcement_stops_only_older_epochs() -> None:
    """The attempt that has announced itself goes on; the one before it stops."""
    assert step(append(2, 0, rival=2)) == FindEnd()
    with pytest.raises(FencedError, match="epoch 2 is taking stream t/s over"):
        append(1, 1, remembered=checkpoint(1, 1, 0), rival=2)


def test_conflict_without_a_winner_looks_for_the_end_again() -> None:
    """S3 refuses a write without a winner while it is busy with the same key."""
    writer = append(1, 1, remembered=checkpoint(1, 1, 0))
    writer.wrote(False, NOW)
    writer.read_winner(None, NOW)
    assert step(writer) == FindEnd()


def test_races_end_when_there_is_no_time_left() -> None:
    """An append that loses for ever would hold its writer up without a word."""
    writer = append(2, 0)
    writer.found_end(None, NOW)
    with pytest.raises(BackendUnavailableError, match="lost 1 races"):
        writer.wrote(False, NOW, has_time=False)


def test_expired_stream_gives_way_to_a_new_one_with_the_next_number() -> None:
    """Writers that remember the expired stream and those that do not meet at the same number."""
    writer = append(1, 0)
    writer.found_end(checkpoint(7, 9, 4, expires=NOW), NOW)
    assert written(writer.step) == Checkpoint(8, 1, 0, 8, NOW + TTL, TTL, 1, 1)


@pytest.mark.parametrize(
    ("pause", "due"),
    [(0.1, [4, 8]), (0.3, [])],
)
def test_busy_writer_checks_announcements_with_every_fourth_segment(
    pause: float, due: list[int]
) -> None:
    """Each check costs money, and a writer that pauses lets its successor in anyway."""
    memory = WriterMemory()
    memory.appended(checkpoint(1, 1, 0), 0.0)
    checked = []
    for i in range(1, 10):
        if memory.is_check_due(i * pause):
            checked.append(i)
        memory.appended(checkpoint(i, 1, i), i * pause)
    assert checked == due


@pytest.mark.parametrize(("age", "is_used"), [(3_599.0, True), (3_601.0, False)])
def test_memory_is_used_for_an_hour(age: float, is_used: bool) -> None:
    """Days later a lifecycle rule may have removed the segments that show who came after it."""
    memory = WriterMemory()
    memory.appended(checkpoint(1, 1, 0), 10.0)
    assert (memory.recent(10.0 + age) is not None) == is_used


def test_memory_of_a_deleted_stream_is_dropped() -> None:
    """A stream of the same name that begins anew has other numbers and epochs."""
    memory = WriterMemory()
    memory.appended(checkpoint(1, 5, 0), 1.0)
    memory.announced(6)
    memory.forget()
    assert (memory.recent(1.0), memory.rival) == (None, 0)
