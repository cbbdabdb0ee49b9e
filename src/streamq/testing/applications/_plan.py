"""Reads from the options of a recording which attempts there are, and what happens to each.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._script import CancelReason


@dataclass(frozen=True)
class AttemptPlan:
    """One attempt.

    Attributes:
        number: Its number.
        runs: Whether the activity is run; otherwise the values are written.
        values: What it has sent, if it is not run.
        fail_after: Number of chunks after which it fails.
        cancel_after: Number of chunks after which it is cancelled.
        cancel_reason: Why it is cancelled.
        loses_completion: Whether Temporal does not learn that it has ended its streams.
        is_first: Whether it is the first one that the options speak of.
    """

    number: int
    runs: bool = True
    values: Sequence[Any] = ()
    fail_after: int | None = None
    cancel_after: int | None = None
    cancel_reason: CancelReason = CancelReason.REQUESTED
    loses_completion: bool = False
    is_first: bool = False


def planned(options: Mapping[str, Any]) -> list[AttemptPlan]:
    """Return all attempts, in order.

    Raises:
        ValueError: Options contradict each other, or a number is out of range.
    """
    position, earlier = options.get("position"), options.get("earlier")
    lost = bool(options.get("completion_lost"))
    if position is not None and (earlier is not None or lost):
        raise ValueError(
            "position= lets the attempt before fail after so many chunks; it goes with neither "
            "earlier= nor completion_lost="
        )
    has_earlier = position is not None or earlier is not None or lost
    first = options.get("attempt", 2 if has_earlier else 1)
    if first < (2 if has_earlier else 1):
        raise ValueError(f"attempt={first} has no attempt before it; the first one is 1")
    return [*_before(first, position, earlier, lost), *_recorded(first, options)]


def _before(
    first: int, position: int | None, earlier: Sequence[Any] | None, lost: bool
) -> list[AttemptPlan]:
    opened = [AttemptPlan(number, runs=False) for number in range(1, first)]
    if not opened:
        return []
    number = first - 1
    if position is not None:
        last = AttemptPlan(number, fail_after=_checked("position", position))
    elif lost and earlier is None:
        last = AttemptPlan(number, loses_completion=True)
    else:
        last = AttemptPlan(number, runs=False, values=earlier or (), loses_completion=lost)
    return [*opened[:-1], last]


def _recorded(first: int, options: Mapping[str, Any]) -> list[AttemptPlan]:
    failing, cancelling = (
        _as_list(name, options.get(name)) for name in ("fail_after", "cancel_after")
    )
    count = max(len(failing), len(cancelling), 1)
    plans = []
    for at in range(count):
        plans.append(
            AttemptPlan(
                first + at,
                fail_after=failing[at] if at < len(failing) else None,
                cancel_after=cancelling[at] if at < len(cancelling) else None,
                cancel_reason=options.get("cancel_reason", CancelReason.REQUESTED),
                is_first=at == 0,
            )
        )
    return plans


def _as_list(name: str, given: int | Sequence[int | None] | None) -> list[int | None]:
    items = [given] if given is None or isinstance(given, int) else list(given)
    return [None if each is None else _checked(name, each) for each in items]


def _checked(name: str, chunks: int) -> int:
    if chunks < 0:
        raise ValueError(f"{name}={chunks} is no number of chunks")
    return chunks
