"""The examples of A2A run as they stand: what people copy works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq.devserver import TemporalDevServer

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
TEXT = "The lighthouse says nothing, and the sea repeats it. "


@pytest.fixture(scope="module")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer() as server:
        yield server.address


def _run(example: str, folder: Path, temporal_address: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        cwd=folder,
        env=os.environ | {"STREAMQ_TEMPORAL_ADDRESS": temporal_address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_text_arrives_in_three_places(tmp_path: Path, temporal_address: str) -> None:
    """A client of A2A, one of server-sent events, and a workflow get the same, word by word."""
    lines = _run("a2a_chain.py", tmp_path, temporal_address)
    for watcher in ("a2a", "sse"):
        words = [line.partition("  ")[2] for line in lines if line.startswith(f"{watcher}  ")]
        assert len(words) >= 9
        assert "".join(words) == TEXT
    assert lines[-3:] == [f"{each} has it all: {TEXT}" for each in ("a2a", "sse", "signals")]


@pytest.mark.parametrize("fails", [False, True])
def test_one_agent_has_another_one_write(
    tmp_path: Path, temporal_address: str, fails: bool
) -> None:
    """The story grows word by word; after a retry it is there once, from the beginning."""
    options = ["--fail-once"] if fails else []
    lines = _run("a2a_two_agents.py", tmp_path, temporal_address, *options)
    assert lines[0] == "-- TASK_STATE_WORKING --"
    assert lines[1] == "-- TASK_STATE_WORKING asking the Writer --"
    assert lines[-1] == "-- TASK_STATE_COMPLETED --"
    assert lines.count("-- the story begins --") == 1 + fails
    begin = len(lines) - lines[::-1].index("-- the story begins --")
    assert "".join(lines[begin:-1]) == TEXT


@pytest.mark.parametrize("example", ["a2a_chain.py", "a2a_two_agents.py"])
def test_an_example_says_what_it_does(tmp_path: Path, example: str) -> None:
    """A stranger asks for help first."""
    help_text = "\n".join(_run(example, tmp_path, "127.0.0.1:1", "--help"))
    assert "what to write about" in help_text
