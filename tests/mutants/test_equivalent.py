"""The list of equivalent mutants is about mutants that exist, is short, and has reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from .drivers import DRIVERS, find_driver
from .equivalent import MOST, ListError, check_list, entry_of, read_equivalent
from .mutants import Mutant, mutants_of


@pytest.fixture(scope="module")
def mutants() -> list[Mutant]:
    """Return the mutants of a small driver."""
    return mutants_of(find_driver("modest"))


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_entry_that_the_runner_prints_is_understood(mutants: list[Mutant], tmp_path: Path) -> None:
    """Whoever judges a survivor copies this entry and writes the reason."""
    text = "\n\n".join(entry_of(m).replace('reason = ""', 'reason = "so"') for m in mutants)
    found = read_equivalent(_written(tmp_path / "list.toml", text))
    assert found == {mutant.key: "so" for mutant in mutants}
    check_list(found, mutants, ["modest"])


def test_entry_that_is_no_mutant_any_more_is_an_error(mutants: list[Mutant]) -> None:
    """Code that was changed is judged anew."""
    key = (*mutants[0].key[:-1], 99)
    with pytest.raises(ListError, match="judge it anew"):
        check_list({key: "so"}, mutants, ["modest"])


def test_entry_without_a_reason_is_an_error(mutants: list[Mutant], tmp_path: Path) -> None:
    """A list without reasons is a way to be rid of survivors."""
    with pytest.raises(ListError, match="lacks a reason"):
        read_equivalent(_written(tmp_path / "list.toml", entry_of(mutants[0])))


def test_list_is_current_and_short() -> None:
    """At most a tenth of what is possible may be called equivalent."""
    equivalent = read_equivalent()
    listed = {str(key[0]) for key in equivalent}
    drivers = [driver for driver in DRIVERS if driver.name in listed]
    possible = [mutant for driver in drivers for mutant in mutants_of(driver)]
    check_list(equivalent, possible, listed)
    assert len(equivalent) <= MOST * len(possible)
