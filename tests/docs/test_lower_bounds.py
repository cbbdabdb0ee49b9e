"""The oldest versions that the metadata allows are those that ``make test-lowest`` installs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def bounds() -> Iterator[tuple[str, Version]]:
    """Return the lower bounds of what the core and the plugins depend on.

    The extra for A2A is left out: its SDK needs newer packages than everything else.
    """
    for path in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {})
        optional = [each for extra in extras if extra != "a2a" for each in extras[extra]]
        for text in (*project["dependencies"], *optional):
            found = Requirement(text)
            if not found.name.startswith("streamq"):
                (bound,) = (each for each in found.specifier if each.operator == ">=")
                yield found.name, Version(bound.version)


def test_every_lower_bound_is_what_is_tested() -> None:
    """A bound that nobody has tried is a guess: four versions of Temporal's SDK did not work."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    for name, bound in set(bounds()):
        # A later version of Python may need a later one.
        pins = [line.partition(" ;")[0].split("==") for line in lines]
        lowest = min(Version(version) for each, version in pins if each == name)
        size = len(bound.release)
        assert lowest.release[:size] == bound.release, f"{name}: run make lock, make test-lowest"


def test_no_package_has_two_bounds() -> None:
    """Only the higher one would be tried."""
    found = set(bounds())
    assert len({name for name, _ in found}) == len(found), sorted(found)
