"""Keeps the operators by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import libcst as cst
from tests.mutants.source import Edit, Place

Finder: TypeAlias = Callable[[cst.CSTNode, Place], Iterator[Edit]]
"""Yields the changes that are possible at a node."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A kind of change.

    Attributes:
        name: Name in lists and reports.
        defect: The mistake of a programmer that it stands for, in a few words.
        find: Yields the changes of this kind at a node.
    """

    name: str
    defect: str
    find: Finder


OPERATORS: dict[str, Operator] = {}
"""Every operator by name, in the order of their definition."""


def operator(name: str, defect: str) -> Callable[[Finder], Finder]:
    """Register a function as the finder of an operator."""

    def register(find: Finder) -> Finder:
        assert name not in OPERATORS, name
        OPERATORS[name] = Operator(name, defect, find)
        return find

    return register
