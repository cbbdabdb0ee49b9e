"""The checker finds each kind of defect, and none in a sound run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from ._checker import Attempt, Defect, Seen, Stream, Verdict, check
from ._ledger import Ledger, LedgerTail, read_ledger

_READERS = ("one", "two")


def value(attempt: int, seq: int) -> str:
    return f"{attempt}.{seq}"


def attempt_of(number: int, seqs: range, *, acknowledged: int = 0, done: bool = False) -> Attempt:
    sent = {seq: value(number, seq) for seq in seqs}
    return Attempt(f"ledger-{number}", 1_000 + number, number, sent, acknowledged, done)


def chunk(offset: int, attempt: int, seq: int, digest: str = "") -> Seen:
    return Seen("chunk", offset, attempt, seq, digest or value(attempt, seq))


def end(offset: int, attempt: int, state: str = "END") -> Seen:
    return Seen("end", offset, attempt, state=state)


def restarted() -> Stream:
    """Two of three chunks, then a second attempt with all of them."""
    log = [
        *(chunk(1, 1, 0), chunk(2, 1, 1)),
        *(Seen("reset", 3, 2), chunk(4, 2, 0), chunk(5, 2, 1), chunk(6, 2, 2), end(7, 2)),
    ]
    attempts = [
        attempt_of(1, range(3), acknowledged=2),
        attempt_of(2, range(3), acknowledged=3, done=True),
    ]
    return Stream(
        "s", "restart", 3, "COMPLETED", attempts, {reader: list(log) for reader in _READERS}
    )


def resumed(policy: str = "resume") -> Stream:
    """Two of three chunks, then a second attempt that continues."""
    log = [chunk(1, 1, 0), chunk(2, 1, 1), chunk(3, 2, 2), end(4, 2)]
    second = range(2, 3) if policy == "resume" else range(3)
    attempts = [
        attempt_of(1, range(2), acknowledged=1),
        attempt_of(2, second, acknowledged=3, done=True),
    ]
    return Stream("s", policy, 3, "COMPLETED", attempts, {reader: list(log) for reader in _READERS})


def judge(stream: Stream) -> Verdict:
    return check([stream], _READERS)


@pytest.mark.parametrize(
    "stream", [restarted(), resumed(), resumed("replay")], ids=["restart", "resume", "replay"]
)
def test_a_sound_run_is_found_sound(stream: Stream) -> None:
    """A checker that reports false defects would be ignored."""
    verdict = judge(stream)
    assert verdict.findings == ()
    assert verdict.line(9) == (
        f"chaos: faults=9 chunks={verdict.chunks} lost=0 duplicated=0 reordered=0 hung=0"
    )
    assert verdict.chunks == (5 if stream.policy == "restart" else 3)


Sabotage = Callable[[Stream], None]


def both(change: Callable[[list[Seen]], None]) -> Sabotage:
    """Damage the events of every reader, so that only the ledgers show the defect."""

    def sabotage(stream: Stream) -> None:
        for log in stream.seen.values():
            change(log)

    return sabotage


def one(change: Callable[[list[Seen]], None]) -> Sabotage:
    """Damage the events of one reader."""
    return lambda stream: change(stream.seen["two"])


def drop(place: int) -> Callable[[list[Seen]], None]:
    return lambda log: log.__delitem__(place)


def swap(place: int) -> Callable[[list[Seen]], None]:
    def change(log: list[Seen]) -> None:
        log[place], log[place + 1] = log[place + 1], log[place]

    return change


def exchange(place: int, *events: Seen) -> Callable[[list[Seen]], None]:
    return lambda log: log.__setitem__(slice(place, place + len(events)), events)


def again(place: int) -> Callable[[list[Seen]], None]:
    return lambda log: log.insert(place, log[place])


def replace(*events: Seen) -> Callable[[list[Seen]], None]:
    return lambda log: log.__setitem__(slice(None), events)


def forget_to_finish(stream: Stream) -> None:
    stream.attempts[1].is_done = False


def acknowledge_too_much(stream: Stream) -> None:
    stream.attempts[0].acknowledged = 3


def use_a_number_twice(stream: Stream) -> None:
    stream.attempts.append(Attempt("other", 1_999, 2))


def forget_the_attempt(stream: Stream) -> None:
    del stream.attempts[0]


def give_up(stream: Stream) -> None:
    stream.errors["two"] = "TrimmedError"


def never_complete(stream: Stream) -> None:
    stream.outcome = ""


def fail(stream: Stream) -> None:
    stream.outcome = "FAILED"


RESTART_CASES: dict[str, tuple[Sabotage, Defect]] = {
    "one reader misses an event": (one(drop(1)), Defect.LOST),
    "all readers miss an event": (both(drop(1)), Defect.LOST),
    "one reader misses the first": (one(drop(0)), Defect.LOST),
    "an event is delivered twice": (one(again(3)), Defect.DUPLICATED),
    "the end is delivered twice": (one(again(6)), Defect.DUPLICATED),
    "two events are delivered in the wrong order": (both(swap(5)), Defect.REORDERED),
    "an event comes after the end": (
        one(lambda log: log.append(chunk(8, 2, 3))),
        Defect.DUPLICATED,
    ),
    "two events change places": (one(swap(0)), Defect.REORDERED),
    "two chunks change places, offsets do not": (
        both(exchange(3, chunk(4, 2, 0, "2.1"), chunk(5, 2, 1, "2.0"))),
        Defect.REORDERED,
    ),
    "a chunk that was never sent": (both(exchange(3, chunk(4, 2, 0, "?"))), Defect.LOST),
    "one reader gets another value": (one(exchange(3, chunk(4, 2, 0, "?"))), Defect.REORDERED),
    "a gap": (one(exchange(1, Seen("gap", 2, 1))), Defect.LOST),
    "the final text is short": (
        both(
            replace(chunk(1, 1, 0), Seen("reset", 2, 2), chunk(3, 2, 0), chunk(4, 2, 1), end(5, 2))
        ),
        Defect.LOST,
    ),
    "attempts are mixed": (
        both(
            replace(chunk(1, 1, 0), chunk(2, 1, 1), chunk(3, 2, 2), end(4, 2)),
        ),
        Defect.REORDERED,
    ),
    "a stale attempt continues": (
        both(
            replace(
                *(chunk(1, 1, 0), Seen("reset", 2, 2), chunk(3, 2, 0), chunk(4, 1, 1)),
                *(chunk(5, 2, 1), chunk(6, 2, 2), end(7, 2)),
            )
        ),
        Defect.REORDERED,
    ),
    "all readers miss a chunk": (
        both(
            replace(
                *(chunk(1, 1, 0), chunk(2, 1, 1), Seen("reset", 3, 2)),
                *(chunk(4, 2, 0), chunk(5, 2, 2), end(6, 2)),
            )
        ),
        Defect.LOST,
    ),
    "all readers get a chunk twice": (
        both(
            replace(
                *(chunk(1, 1, 0), chunk(2, 1, 1), Seen("reset", 3, 2), chunk(4, 2, 0)),
                *(chunk(5, 2, 1), chunk(6, 2, 1), chunk(7, 2, 2), end(8, 2)),
            )
        ),
        Defect.DUPLICATED,
    ),
    "an acknowledged chunk of an earlier attempt is missing": (acknowledge_too_much, Defect.LOST),
    "the stream is ended by an attempt that was not done": (forget_to_finish, Defect.LOST),
    "the stream ends with an error": (both(exchange(6, end(7, 2, "ERROR"))), Defect.LOST),
    "an unknown attempt": (forget_the_attempt, Defect.LOST),
    "two attempts with one number": (use_a_number_twice, Defect.DUPLICATED),
    "a reader gives up": (give_up, Defect.LOST),
    "a reader never gets the end": (one(drop(6)), Defect.HUNG),
    "a reader never gets anything": (one(list.clear), Defect.HUNG),
    "the workflow never ends": (never_complete, Defect.HUNG),
    "the workflow fails": (fail, Defect.HUNG),
}


@pytest.mark.parametrize("name", RESTART_CASES)
def test_each_defect_of_a_stream_that_restarts_is_found(name: str) -> None:
    """A checker that cannot fail proves nothing."""
    sabotage, defect = RESTART_CASES[name]
    stream = copy.deepcopy(restarted())
    sabotage(stream)
    verdict = judge(stream)
    assert verdict.count(defect)
    assert f"{defect.value}={verdict.count(defect)}" in verdict.line(1)


RESUME_CASES: dict[str, tuple[Sabotage, Defect]] = {
    "the text starts over": (
        both(
            replace(
                *(chunk(1, 1, 0), chunk(2, 1, 1), Seen("reset", 3, 2)),
                *(chunk(4, 2, 0), chunk(5, 2, 1), chunk(6, 2, 2), end(7, 2)),
            )
        ),
        Defect.DUPLICATED,
    ),
    "a durable chunk is delivered again": (
        both(
            replace(chunk(1, 1, 0), chunk(2, 1, 1), chunk(3, 2, 1), chunk(4, 2, 2), end(5, 2)),
        ),
        Defect.DUPLICATED,
    ),
    "the second attempt begins too late": (
        both(replace(chunk(1, 1, 0), chunk(2, 2, 2), end(3, 2))),
        Defect.LOST,
    ),
    "an acknowledged chunk is missing": (acknowledge_too_much, Defect.LOST),
    "the text ends early": (both(replace(chunk(1, 1, 0), chunk(2, 1, 1), end(3, 2))), Defect.LOST),
}


@pytest.mark.parametrize("policy", ["resume", "replay"])
@pytest.mark.parametrize("name", RESUME_CASES)
def test_each_defect_of_a_stream_that_continues_is_found(name: str, policy: str) -> None:
    """Without a reset there is one text, delivered whole and once."""
    sabotage, defect = RESUME_CASES[name]
    stream = copy.deepcopy(resumed(policy))
    sabotage(stream)
    assert judge(stream).count(defect)


def test_an_incomplete_line_is_ignored_and_overwritten(tmp_path: Path) -> None:
    """A process that died while it wrote must not damage the lines of its successor."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.write(n=1)
    with path.open("ab") as file:
        file.write(b'{"n":')
    tail = LedgerTail(path)
    assert [line["n"] for line in tail.read()] == [1]
    with Ledger(path) as ledger:
        ledger.write(n=2)
    assert [line["n"] for line in tail.read()] == [2]
    assert [line["n"] for line in read_ledger(path)] == [1, 2]
