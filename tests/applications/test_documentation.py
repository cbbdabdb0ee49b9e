"""Runs the programs of the page about testing applications."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from streamq import testing
from streamq.testing import CancelReason, Recorded, RecordedStream, RecordOptions

PAGE = (Path(__file__).parents[2] / "docs/testing.md").read_text()
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_examples_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """People copy them as they stand, in the order of the page."""
    activities, *tests = BLOCKS
    [conftest] = [block for block in tests if block.startswith("# conftest.py")]
    tests.remove(conftest)
    pytester.makeconftest(conftest)
    pytester.makepyfile(poems=activities, test_poems="\n\n".join(tests))
    beside = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{os.environ['PATH']}")
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-n0", "-W", "error"),
        *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
    )
    expected = sum(block.count("def test_") for block in tests)
    assert expected >= 10
    result.assert_outcomes(passed=expected)


def test_attributes_and_options_are_on_the_page() -> None:
    """What the page leaves out, nobody finds."""
    named = set(re.findall(r"`(\w+)(?:=[^`]*)?`", PAGE)) | set(re.findall(r"`(\w+)\(", PAGE))
    offered = {
        *(each for each in vars(Recorded) if not each.startswith("_")),
        *(each for each in vars(RecordedStream) if not each.startswith("_")),
        *RecordOptions.__annotations__,
        *(each.name for each in CancelReason),
    }
    unnamed = {"stream", "start_to_close_timeout", "schedule_to_close_timeout"}
    assert sorted(offered - named - unnamed - {"heartbeat_timeout"}) == []


def test_story_that_the_page_shows_is_how_it_is_shown() -> None:
    """A reader of pytest's output recognises it."""
    assert "<Recorded 'Oslo the', 'Oslo sea', RESET 2, 'Oslo the', END; attempt 2: " in PAGE
    assert testing.Recorded.__repr__ is RecordedStream.__repr__
