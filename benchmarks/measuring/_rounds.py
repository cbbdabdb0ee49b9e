"""Repeats the runs of all contenders in turn, so that a busy moment does not meet only one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ._contenders import Contender, Run, Stage
from ._load import Load


@dataclass(slots=True)
class Outcome:
    """The runs of one contender under one load.

    Attributes:
        contender: Its name.
        runs: One for each round; ``None`` for a run with a fault.
        faults: What was wrong, in words.
    """

    contender: str
    runs: list[Run | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def figures(self, name: str) -> list[float | None]:
        """Return one figure of each round; ``None`` where there is none."""
        return [None if run is None else run.figures.get(name) for run in self.runs]


async def repeat(
    contenders: Sequence[Contender], load: Load, *, rounds: int, stage: Stage
) -> list[Outcome]:
    """Run each contender in each round; another one begins each time."""
    outcomes = [Outcome(each.name) for each in contenders]
    for number in range(rounds):
        for step in range(len(contenders)):
            at = (number + step) % len(contenders)
            run = await stage.run(contenders[at], load)
            outcomes[at].runs.append(None if run.faults else run)
            outcomes[at].faults += run.faults
            _tell(load, number, contenders[at].name, run)
    return outcomes


def _tell(load: Load, number: int, name: str, run: Run) -> None:
    if run.faults:
        said = f"no result: {'; '.join(run.faults)}"
    else:
        figures = run.figures
        said = (
            f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms, "
            f"CPU {figures['cpu_producer']:.1f} + {figures['cpu_reader']:.1f} us a chunk"
        )
    busy = os.getloadavg()[0]
    print(f"{load}, round {number + 1}, {name}: {said} (load {busy:.1f})", file=sys.stderr)
