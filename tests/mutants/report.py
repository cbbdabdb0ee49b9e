"""Counts verdicts, prints them as tables and lists, and writes them as JSON.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .equivalent import MOST, entry_of
from .outcomes import BROKEN, CAUGHT, EQUIVALENT, HUNG, SURVIVED, UNREACHED
from .running import Sound, Verdict

_KINDS = (CAUGHT, SURVIVED, UNREACHED, HUNG, EQUIVALENT)
_NAMED_CHECKS = 6
_ENOUGH = 100


@dataclass(frozen=True, slots=True)
class Counts:
    """How many mutants had which outcome."""

    of: Counter[str]

    @classmethod
    def count(cls, verdicts: Iterable[Verdict]) -> Counts:
        """Count verdicts; a mutant that cannot be imported was not tried."""
        return cls(Counter(each.outcome for each in verdicts if each.outcome != BROKEN))

    @property
    def tried(self) -> int:
        """All that count."""
        return sum(self.of.values())

    @property
    def survived(self) -> int:
        """All that no check has failed on, for whatever reason."""
        return self.of[SURVIVED] + self.of[UNREACHED] + self.of[HUNG]

    @property
    def share_caught(self) -> float:
        """How many of those that are not equivalent were caught, between 0 and 1."""
        counted = self.of[CAUGHT] + self.survived
        return self.of[CAUGHT] / counted if counted else 1.0

    @property
    def has_too_many_equivalent(self) -> bool:
        """Whether more were called equivalent than is believable, among enough to say so."""
        return self.tried >= _ENOUGH and self.of[EQUIVALENT] > MOST * self.tried

    def line(self, seed: int) -> str:
        """Return the last line of a run."""
        return (
            f"mutants: seed={seed} tried={self.tried} caught={self.of[CAUGHT]} "
            f"survived={self.survived} equivalent={self.of[EQUIVALENT]}"
        )


def print_tables(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print what became of the mutants of each driver, and of each operator."""
    for title, group in (
        ("driver", lambda each: each.mutant.driver),
        ("operator", lambda each: each.mutant.operator),
    ):
        console.print(_table(title, verdicts, group))


def _table(title: str, verdicts: Sequence[Verdict], group: Callable[[Verdict], str]) -> Table:
    table = Table(title=f"Mutants by {title}", title_justify="left")
    table.add_column(title, no_wrap=True)
    for name in ("tried", *_KINDS, "caught %"):
        table.add_column(name, justify="right", min_width=4)
    names = sorted({group(each) for each in verdicts})
    for name in names:
        mine = [each for each in verdicts if group(each) == name]
        table.add_row(*_row(name, mine), end_section=name == names[-1])
    table.add_row(*_row("all", verdicts))
    return table


def _row(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counts.count(verdicts)
    kinds = [str(counts.of[kind]) for kind in _KINDS]
    return [name, str(counts.tried), *kinds, f"{100 * counts.share_caught:.1f}"]


def print_survivors(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print every mutant that no check has failed on, with what would list it as equivalent."""
    for verdict in verdicts:
        if verdict.outcome in (SURVIVED, UNREACHED, HUNG):
            console.print(described(verdict), markup=False, highlight=False, soft_wrap=True)


def described(verdict: Verdict) -> str:
    """Return everything about a verdict, in several lines."""
    mutant = verdict.mutant
    lines = [
        f"{verdict.outcome} {mutant.id} {mutant.driver} {mutant.place} "
        f"in {mutant.function or mutant.module}: {mutant.operator}",
        *("    " + line for line in mutant.diff().splitlines()),
    ]
    if verdict.outcome == UNREACHED:
        lines.append("    not executed by the kit")
    elif verdict.checks:
        names = [name.rpartition("::")[2].removeprefix("test_") for name in verdict.checks]
        more = f" and {len(names) - _NAMED_CHECKS} more" if len(names) > _NAMED_CHECKS else ""
        lines.append(f"    executed by {', '.join(names[:_NAMED_CHECKS])}{more}")
    if verdict.check:
        lines.append(f"    {verdict.outcome} by {verdict.check.rpartition('::')[2]}")
    lines += ["    " + line for line in verdict.reason.strip().splitlines()[-12:]]
    return "\n".join(lines)


def write_report(
    path: Path, seed: int, verdicts: Sequence[Verdict], sound: dict[str, Sound]
) -> None:
    """Write everything as JSON."""
    counts = Counts.count(verdicts)
    report = {
        "seed": seed,
        "tried": counts.tried,
        **{kind: counts.of[kind] for kind in _KINDS},
        "drivers": {
            name: {
                "seconds": round(each.total_seconds, 1),
                "checks": len(each.seconds),
                "skipped": list(each.skipped),
                "unsteady": list(each.unsteady),
            }
            for name, each in sound.items()
        },
        "mutants": [
            {
                "id": each.mutant.id,
                "outcome": each.outcome,
                "driver": each.mutant.driver,
                "place": each.mutant.place,
                "function": each.mutant.function,
                "operator": each.mutant.operator,
                "diff": each.mutant.diff(),
                "check": each.check,
                "reason": each.reason,
                "executed_by": list(each.checks),
                "ran": each.ran,
                "seconds": round(each.seconds, 1),
                "entry": entry_of(each.mutant),
            }
            for each in verdicts
        ],
    }
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
