"""Prints what was measured: ratios first, then medians, each with its spread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ._rounds import Outcome


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table.

    Attributes:
        figure: Name of the figure of a run.
        what: How it is called, with its unit.
        at_most: The promise: the ratio to a contender is at most this, by that contender's name.
    """

    figure: str
    what: str
    at_most: tuple[tuple[str, float], ...] = ()


def report(
    title: str,
    outcomes: Sequence[Outcome],
    measures: Sequence[Measure],
    *,
    subject: str,
    as_json: bool,
) -> bool:
    """Print the outcomes of one load; return whether every promise was met.

    Args:
        title: Above the table.
        outcomes: Of all contenders.
        measures: The lines.
        subject: The contender whose ratios to the others come first.
        as_json: Print one line of JSON instead of a table.
    """
    by_name = {each.contender: each for each in outcomes}
    ours = by_name[subject]
    others = [each for each in outcomes if each is not ours]
    lines = [_line(measure, ours, others) for measure in measures]
    faults = {each.contender: each.faults for each in outcomes if each.faults}
    if as_json:
        print(json.dumps({"title": title, "lines": lines, "faults": faults}))
    else:
        _print(title, lines, [each.contender for each in outcomes], others)
        for name, found in faults.items():
            print(f"{name}: {len(found)} faults, their runs do not count: {'; '.join(found[:3])}")
    return all(line["met"] is not False for line in lines) and not ours.faults


def _line(measure: Measure, ours: Outcome, others: Sequence[Outcome]) -> dict[str, object]:
    ratios = {each.contender: _ratios(ours, each, measure.figure) for each in others}
    met: bool | None = None
    for name, most in measure.at_most:
        if name in ratios:
            found = ratios[name]
            met = met is not False and bool(found) and statistics.median(found) <= most
    values = {
        each.contender: [value for value in each.figures(measure.figure) if value is not None]
        for each in (ours, *others)
    }
    return {
        "what": measure.what,
        "ratios": ratios,
        "values": values,
        "promised": ", ".join(f"<= {most:g} x {name}" for name, most in measure.at_most),
        "met": met,
    }


def _ratios(ours: Outcome, other: Outcome, figure: str) -> list[float]:
    """Return the ratios of the rounds in which both have a result."""
    pairs = zip(ours.figures(figure), other.figures(figure), strict=True)
    return [a / b for a, b in pairs if a is not None and b]


def _print(
    title: str, lines: Sequence[dict[str, object]], names: list[str], others: Sequence[Outcome]
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("measured")
    for other in others:
        table.add_column(f"ratio to {other.contender}", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("promised", justify="right")
    table.add_column("met", justify="right")
    for line in lines:
        ratios, values = line["ratios"], line["values"]
        assert isinstance(ratios, dict)
        assert isinstance(values, dict)
        table.add_row(
            str(line["what"]),
            *[_shown(ratios[other.contender]) for other in others],
            *[_shown(values[name]) for name in names],
            str(line["promised"]),
            {None: "", True: "yes", False: "[bold red]no[/]"}[line["met"]],  # type: ignore[index]
        )
    console = Console()
    Console(width=console.width if console.is_terminal else 150).print(table)


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "no result"
    middle = _number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
