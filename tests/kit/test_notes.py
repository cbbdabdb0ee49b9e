"""Notes at the end of a run, collected from all test processes."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("processes", ["0", "2"])
def test_notes_of_every_process_are_told_once_at_the_end(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, processes: str
) -> None:
    """A run has to show which brokers it has used."""
    root = pytestconfig.rootpath
    pytester.makeconftest((root / "conftest.py").read_text())
    pytester.makepyfile(
        test_one="def test_one(note): note('brokers', 'Tansu')",
        test_two="def test_two(note): note('brokers', 'Apache'), note('brokers', 'Tansu')",
    )
    options = ("-n", processes, "--dist", "loadfile", "-p", "no:cacheprovider")
    found = pytester.runpytest_subprocess(*options, "-o", f"pythonpath={root}")
    found.stdout.fnmatch_lines(["brokers: Apache, Tansu", "*2 passed*"])
