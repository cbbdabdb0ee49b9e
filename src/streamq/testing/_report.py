"""Collects the outcomes of checks and makes the capability report, as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_OUTCOMES = (PASSED, FAILED, SKIPPED)


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The outcome of one check.

    Attributes:
        node: pytest's id of the test.
        suite: The test file and class.
        backend: The harness's label.
        name: The check.
        group: The group of the check.
        guarantee: The first sentence of its docstring.
        capabilities: The capabilities that it tests.
        promises: The sentences of the contract that it proves, each with the object that has it.
        declared: The capabilities that the queue under test declares, if it was opened.
        outcome: ``passed``, ``failed`` or ``skipped``.
        reason: The reason for skipping, or the failure.
    """

    node: str
    suite: str
    backend: str
    name: str
    group: str
    guarantee: str
    capabilities: tuple[str, ...]
    promises: tuple[tuple[str, str], ...]
    declared: dict[str, bool | int | str] | None
    outcome: str
    reason: str = ""


@dataclass(slots=True)
class SuiteReport:
    """The outcomes of one suite on one backend."""

    suite: str
    backend: str
    declared: dict[str, bool | int | str] = field(default_factory=dict)
    outcomes: list[CheckOutcome] = field(default_factory=list)

    @property
    def groups(self) -> list[str]:
        """The groups that had checks, in the order in which they ran."""
        return list(dict.fromkeys(outcome.group for outcome in self.outcomes))

    def testing(self, capability: str) -> list[CheckOutcome]:
        """Return the checks that test a capability."""
        return [outcome for outcome in self.outcomes if capability in outcome.capabilities]

    def within(self, group: str) -> list[CheckOutcome]:
        """Return the checks of a group."""
        return [outcome for outcome in self.outcomes if outcome.group == group]

    def skips(self) -> Counter[str]:
        """Return the number of skipped checks by reason."""
        return Counter(o.reason for o in self.outcomes if o.outcome == SKIPPED)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; docs/conformance.md documents the keys."""
        return {
            "suite": self.suite,
            "backend": self.backend,
            "capabilities": {
                name: {"declared": value, **_counts(self.testing(name))}
                for name, value in self.declared.items()
            },
            "groups": {group: _counts(self.within(group)) for group in self.groups},
            "totals": _counts(self.outcomes),
            "checks": [
                {
                    "name": outcome.name,
                    "group": outcome.group,
                    "guarantee": outcome.guarantee,
                    "capabilities": list(outcome.capabilities),
                    "promises": [
                        {"where": where, "sentence": sentence}
                        for where, sentence in outcome.promises
                    ],
                    "outcome": outcome.outcome,
                    "reason": outcome.reason,
                }
                for outcome in self.outcomes
            ],
        }

    def lines(self) -> list[str]:
        """Return the tables as text."""
        capabilities = [
            (name, _shown(value), *_cells(self.testing(name)))
            for name, value in self.declared.items()
        ]
        groups = [(group, *_cells(self.within(group))) for group in self.groups]
        lines = [
            *_table(("capability", "declared", *_OUTCOMES), capabilities),
            "",
            *_table(("group", *_OUTCOMES), [*groups, ("all", *_cells(self.outcomes))]),
        ]
        skips = self.skips()
        if skips:
            lines += ["", *(f"skipped {count}: {why}" for why, count in sorted(skips.items()))]
        return lines


class Report:
    """Collects outcomes of any number of suites."""

    def __init__(self) -> None:
        self._outcomes: dict[str, CheckOutcome] = {}

    def add(self, outcome: CheckOutcome) -> None:
        """Add one outcome; a failure replaces an earlier outcome of the same test."""
        known = self._outcomes.get(outcome.node)
        if known is None or outcome.outcome == FAILED:
            self._outcomes[outcome.node] = outcome

    def suites(self) -> list[SuiteReport]:
        """Return a report for each suite and backend."""
        found: dict[tuple[str, str], SuiteReport] = {}
        for outcome in self._outcomes.values():
            key = outcome.suite, outcome.backend
            suite = found.setdefault(key, SuiteReport(*key))
            suite.outcomes.append(outcome)
            suite.declared.update(outcome.declared or {})
        return list(found.values())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; docs/conformance.md documents the keys."""
        return {"version": 1, "suites": [suite.to_dict() for suite in self.suites()]}


def _counts(outcomes: Iterable[CheckOutcome]) -> dict[str, int]:
    counts = Counter(outcome.outcome for outcome in outcomes)
    return {name: counts[name] for name in _OUTCOMES}


def _cells(outcomes: Iterable[CheckOutcome]) -> tuple[str, ...]:
    return tuple(str(count) if count else "-" for count in _counts(outcomes).values())


def _shown(value: bool | int | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else value


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned text: names flush left, outcomes flush right."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if title in _OUTCOMES else cell.ljust(width)
            for cell, width, title in zip(row, widths, head, strict=True)
        ).rstrip()
        for row in cells
    ]
