"""Draws mutants in an order that a seed determines: evenly by driver, operator and place.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from .mutants import Mutant

T = TypeVar("T")


def draw(mutants: Mapping[str, Sequence[Mutant]], seed: int) -> Iterator[Mutant]:
    """Yield every mutant once.

    Of every driver comes one in each round. The next one of a driver is of the operator, and then
    of the function, of which the fewest came so far; chance decides among equals.

    Args:
        mutants: The mutants of each driver, by its name.
        seed: Determines the order, together with the mutants.
    """
    dice = random.Random(seed)
    turns = {
        name: _evenly(_by_operator(found, dice), dice) for name, found in sorted(mutants.items())
    }
    while turns:
        for name in dice.sample(sorted(turns), len(turns)):
            drawn = next(turns[name], None)
            if drawn is None:
                del turns[name]
            else:
                yield drawn


def _by_operator(found: Sequence[Mutant], dice: random.Random) -> dict[str, Iterator[Mutant]]:
    operators: defaultdict[str, defaultdict[str, list[Mutant]]]
    operators = defaultdict(lambda: defaultdict(list))
    for mutant in found:
        operators[mutant.operator][f"{mutant.module}:{mutant.function}"].append(mutant)
    return {
        operator: _evenly(
            {place: iter(dice.sample(there, len(there))) for place, there in places.items()}, dice
        )
        for operator, places in operators.items()
    }


def _evenly(groups: dict[str, Iterator[T]], dice: random.Random) -> Iterator[T]:
    """Take one of each group in every round, the groups in a new order each time."""
    while groups:
        for name in dice.sample(sorted(groups), len(groups)):
            try:
                yield next(groups[name])
            except StopIteration:
                del groups[name]
