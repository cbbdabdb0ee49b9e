"""Mutants are listed and drawn as the seed says, evenly, and keep their identity."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from .drawing import draw
from .drivers import DRIVERS, DriverUnderTest, find_driver
from .mutants import Mutant, mutants_of
from .source import Source, walk


@pytest.fixture(scope="module")
def mutants() -> dict[str, list[Mutant]]:
    """Return the mutants of three small drivers."""
    return {name: mutants_of(find_driver(name)) for name in ("log", "mailbox", "modest")}


def _ids(mutants: dict[str, list[Mutant]], seed: int) -> list[str]:
    return [mutant.id for mutant in draw(mutants, seed)]


def test_seed_determines_the_order(mutants: dict[str, list[Mutant]]) -> None:
    """A survivor that somebody reports can be found again."""
    assert _ids(mutants, 7) == _ids(mutants, 7)
    assert _ids(mutants, 7) != _ids(mutants, 8)


def test_every_mutant_comes_once(mutants: dict[str, list[Mutant]]) -> None:
    """A whole run is whole, and counts nothing twice; no two mutants share an id."""
    every = sorted(mutant.id for found in mutants.values() for mutant in found)
    assert sorted(_ids(mutants, 7)) == every
    assert len(set(every)) == len(every)


def test_drivers_and_operators_come_evenly(mutants: dict[str, list[Mutant]]) -> None:
    """A kind of defect with many places must not hide one with few."""
    few = list(islice(draw(mutants, 7), 3 * 20))
    assert set(Counter(mutant.driver for mutant in few).values()) == {20}
    for name, found in mutants.items():
        drawn = Counter(mutant.operator for mutant in few if mutant.driver == name)
        there = {mutant.operator for mutant in found}
        assert max(drawn.values()) == (1 if len(there) >= 20 else 2)


def test_places_come_evenly(mutants: dict[str, list[Mutant]]) -> None:
    """A long function must not take all turns of an operator."""
    only = {"log": [m for m in mutants["log"] if m.operator == "call-left-out"]}
    places = {mutant.function for mutant in only["log"]}
    first = list(islice(draw(only, 7), len(places)))
    assert {mutant.function for mutant in first} == places


def test_identity_outlives_changes_elsewhere(tmp_path: Path) -> None:
    """A judgement about a mutant stays true while its statement does."""

    class Elsewhere(DriverUnderTest):
        def path(self, module: str) -> Path:
            return tmp_path / "module.py"

    driver = Elsewhere("elsewhere", ("module",), "")
    text = "def read(size):\n    return size < 3\n"
    (tmp_path / "module.py").write_text(text)
    before = {mutant.id for mutant in mutants_of(driver)}
    (tmp_path / "module.py").write_text(f"import os\n\n\ndef other():\n    os.sync()\n\n\n{text}")
    assert before < {mutant.id for mutant in mutants_of(driver)}


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.name)
def test_what_is_left_out_exists_and_has_a_reason(driver: DriverUnderTest) -> None:
    """A renamed function would otherwise be changed again, and its reason would stay."""
    for code, reason in driver.left_out.items():
        module, _, function = code.partition(":")
        assert reason
        path = driver.path(module)
        if function:
            assert module in driver.modules
            everything = Source(path.read_text(encoding="utf-8"))
            assert function in {place.function for _, place in walk(everything)}
        else:
            assert module not in driver.modules
