"""A short chaos run, as ``make chaos`` does it; run a longer one after changes of core."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ._backends import backend_type, faults_of
from ._schedule import Fault, make_schedule

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ShortRun:
    """A run that is short enough for every day.

    Attributes:
        backend: The backend that is broken.
        seconds: Duration of the faults.
        seed: One with which all faults of the backend happen in that time.
        effective: Share of the faults that have an effect: a gateway without clients is not cut.
    """

    backend: str
    seconds: int
    seed: int
    effective: float

    @property
    def schedule(self) -> list[Fault]:
        """The faults."""
        return make_schedule(self.seed, self.seconds, faults_of(self.backend))


RUNS = [
    ShortRun("redis", 12, 405, 0.8),
    ShortRun("sqlite", 7, 35, 0.5),
    ShortRun("postgres", 8, 42, 0.5),
    ShortRun("kafka", 8, 1, 0.5),
    ShortRun("s3sns", 8, 8, 0.5),
    ShortRun("sqs", 8, 4, 0.5),
    ShortRun("workflow_streams", 8, 9, 0.5),
]


def start(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that other users can reach, unlike those of pytest: servers run as others."""
    with tempfile.TemporaryDirectory(prefix="streamq-test-chaos-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        yield place


@pytest.mark.timeout(600)  # on a busy machine most of it is what follows the faults
@pytest.mark.parametrize(
    "run",
    [RUNS[0], *(pytest.param(run, marks=pytest.mark.full) for run in RUNS[1:])],
    ids=lambda run: run.backend,
)
def test_nothing_is_lost_duplicated_reordered_or_hung(run: ShortRun, reachable: Path) -> None:
    """streamq's guarantees have to hold while everything fails that can; these are short runs."""
    arguments = ("--seconds", str(run.seconds), "--seed", str(run.seed))
    with start("--backend", run.backend, *arguments, temporary=reachable) as process:
        out, err = process.communicate()
    last = out.splitlines()[-1]
    found = re.fullmatch(
        r"chaos: faults=(\d+) chunks=(\d+) lost=0 duplicated=0 reordered=0 hung=0", last
    )
    assert found, out + err
    assert process.returncode == 0
    assert "ended by themselves" not in out, out + err
    # A cut that meets no connection does not count.
    assert int(found[1]) >= run.effective * len(run.schedule)
    assert int(found[2]) > 10 * run.seconds * backend_type(run.backend).streams_per_second


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.backend)
def test_a_short_run_has_every_kind_of_fault_of_its_backend(run: ShortRun) -> None:
    """They are what everybody runs; the one of the default backend has all the others, too."""
    wanted = faults_of(run.backend) if run is RUNS[0] else backend_type(run.backend).sources
    assert {fault.kind for fault in run.schedule} >= {each.kind for each in wanted}


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
