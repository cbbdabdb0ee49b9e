"""A short chaos run, as ``make chaos`` does it; run a longer one after changes of core."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ._schedule import FaultKind, make_schedule

_ROOT = Path(__file__).parents[2]
_SECONDS = 30
_SEED = 5


def start(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(600)  # on a busy machine most of it is what follows the faults
def test_nothing_is_lost_duplicated_reordered_or_hung(tmp_path: Path) -> None:
    """streamq's guarantees have to hold while everything fails that can; this is a short run."""
    run = start("--seconds", str(_SECONDS), "--seed", str(_SEED), temporary=tmp_path)
    with run:
        out, err = run.communicate()
    last = out.splitlines()[-1]
    found = re.fullmatch(
        r"chaos: faults=(\d+) chunks=(\d+) lost=0 duplicated=0 reordered=0 hung=0", last
    )
    assert found, out + err
    assert run.returncode == 0
    assert "ended by themselves" not in out, out + err
    # A cut that meets no connection does not count.
    assert int(found[1]) >= 0.9 * len(make_schedule(_SEED, _SECONDS))
    assert int(found[2]) > 1_000


def test_the_short_run_has_every_kind_of_fault() -> None:
    """It is the one that everybody runs."""
    assert {fault.kind for fault in make_schedule(_SEED, _SECONDS)} == set(FaultKind)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see processes")
def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    """A dozen remaining processes would disturb the next run, and the machine."""
    with start("--seconds", "60", temporary=tmp_path) as run:
        try:
            until(lambda: any(tmp_path.glob("streamq-chaos-*/streams.jsonl")), "a stream starts")
            until(lambda: len(processes(tmp_path)) > 10, "all processes run")
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130, out + err
    assert "Traceback" not in err
    until(lambda: not processes(tmp_path), "every process has ended")
    assert not list(tmp_path.iterdir())


def processes(temporary: Path) -> list[int]:
    """Return the processes that a run has started; they have inherited its environment."""
    mark = f"TMPDIR={temporary}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition; there is no event for the state of other processes."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not true in time: {what}"
        time.sleep(0.05)
