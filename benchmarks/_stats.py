"""Percentiles, medians over interleaved rounds, and the table of every benchmark."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of ``values``, ``share`` in 0..1."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: The quantity measured, with its unit.
        bare: Median over the rounds of the bare client, or ``None`` without one.
        streamq: Median over the rounds of streamq.
        spread: Smallest and largest ratio (or value) over the rounds.
        bar: The promise, in words.
        met: Whether this run met it; ``None`` without a promise.
    """

    what: str
    bare: float | None
    streamq: float
    spread: tuple[float, float]
    bar: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """streamq over bare."""
        return self.streamq / self.bare if self.bare else None


def compare(
    what: str,
    bare: Sequence[float],
    streamq: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Compare two contenders round by round; the medians make the row."""
    ratios = [s / b for s, b in zip(streamq, bare, strict=True)]
    b, s = statistics.median(bare), statistics.median(streamq)
    met, bar = None, ""
    if at_most is not None:
        met, bar = s / b <= at_most, f"<= {at_most:g} x bare"
    if at_least is not None:
        met, bar = s / b >= at_least, f">= {at_least:g} x bare"
    return Row(what, b, s, (min(ratios), max(ratios)), bar, met)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(title: str, rows: Sequence[Row], *, as_json: bool) -> bool:
    """Print the rows; return whether every promise was met."""
    if as_json:
        print(json.dumps({"title": title, "rows": [asdict(r) | {"ratio": r.ratio} for r in rows]}))
    else:
        table = Table(title=title, title_justify="left")
        for name in ("measured", "bare", "streamq", "ratio", "rounds", "promised", "met"):
            table.add_column(name, justify="left" if name == "measured" else "right")
        for row in rows:
            table.add_row(
                row.what,
                "" if row.bare is None else _number(row.bare),
                _number(row.streamq),
                "" if row.ratio is None else f"{row.ratio:.2f}",
                f"{row.spread[0]:,.2f} to {row.spread[1]:,.2f}",
                row.bar,
                {None: "", True: "yes", False: "[bold red]no[/]"}[row.met],
            )
        console = Console()
        Console(width=console.width if console.is_terminal else 120).print(table)
    return all(row.met is not False for row in rows)
