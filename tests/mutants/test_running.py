"""A mutant is run by itself, without a trace in the sources, and its outcome is told apart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .drivers import ROOT, find_driver
from .forking import Forker
from .injected import sitecustomize
from .mutants import Mutant, mutants_of
from .outcomes import BROKEN, CAUGHT, HUNG, SURVIVED, UNREACHED
from .running import Sound, try_mutant
from .source import Edit

LOG = find_driver("log")
CHECK = f"{LOG.suite}::test_describe_of_a_missing_stream_raises"


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    """Return what starts the runs of this module."""
    made = Forker()
    yield made
    made.close()


def _mutant(old: str, new: str) -> Mutant:
    path = LOG.path(LOG.modules[0])
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    start = text.index(old)
    return Mutant(
        driver="log",
        module=LOG.modules[0],
        path=path,
        function="",
        operator="by hand",
        before=old,
        after=new,
        occurrence=1,
        first_line=1,
        last_line=1,
        is_called=False,
        edit=Edit(start, start + len(old), new),
        text=text,
    )


SOUND = Sound({CHECK: 0.01}, {}, (), (), 1.0)
RAISES = "raise not_found_error(self.backend, stream)"


def test_failing_check_catches_a_mutant(forker: Forker) -> None:
    """This is what the kit is for."""
    verdict = try_mutant(forker, LOG, _mutant(RAISES, "return StreamInfo(stream)"), SOUND)
    assert (verdict.outcome, verdict.check) == (CAUGHT, CHECK)
    assert "StreamNotFoundError" in verdict.reason


def test_passing_checks_let_a_mutant_survive(forker: Forker) -> None:
    """A kit that passes a defect has to be told so."""
    verdict = try_mutant(
        forker, LOG, _mutant("max_record_bytes=2**20", "max_record_bytes=7"), SOUND
    )
    assert (verdict.outcome, verdict.ran) == (SURVIVED, 1)


def test_hanging_mutant_is_not_caught(forker: Forker) -> None:
    """A time limit of the test run is no check: authors of drivers may have none."""
    mutant = _mutant(RAISES, "while True: pass")
    verdict = try_mutant(forker, LOG, mutant, SOUND, check_seconds=1.0)
    assert verdict.outcome == HUNG


def test_dying_mutant_is_not_caught(forker: Forker) -> None:
    """A crash is no check either."""
    verdict = try_mutant(forker, LOG, _mutant(RAISES, "import os; os.kill(0, 9)"), SOUND)
    assert verdict.outcome == HUNG


@pytest.mark.parametrize("broken", ["fenced=no_such_name,", "fenced=,"])
def test_mutant_that_cannot_be_imported_does_not_count(forker: Forker, broken: str) -> None:
    """Nobody would publish such a driver."""
    verdict = try_mutant(forker, LOG, _mutant("fenced=False,", broken), SOUND)
    assert verdict.outcome == BROKEN


def test_line_that_no_check_executes_is_not_run(forker: Forker) -> None:
    """It is known beforehand what would come of it."""
    mutant = next(m for m in mutants_of(LOG) if m.is_called)
    assert try_mutant(forker, LOG, mutant, SOUND).outcome == UNREACHED


def test_capability_is_proved_by_checks_that_the_sound_driver_skips(forker: Forker) -> None:
    """A driver that declares too much is caught by just these."""
    skipped = f"{LOG.suite}::test_stream_expires_after_its_ttl"
    sound = Sound({}, {}, (skipped,), (), 1.0)
    verdict = try_mutant(forker, LOG, _mutant("expires=False,", "expires=True,"), sound)
    assert (verdict.outcome, verdict.check) == (CAUGHT, skipped)


def test_processes_of_a_check_have_the_mutant_too(tmp_path: Path) -> None:
    """Otherwise the other process of a check would run a sound driver."""
    mutant = _mutant('backend = "log"', 'backend = "changed"')
    job = tmp_path / "job"
    facts = {"module": mutant.module, "path": str(mutant.path), "text": mutant.source()}
    job.write_text(json.dumps({**facts, "memory": 2**32}))
    code = f"import {mutant.module} as m; print(m.LogQueue.backend)"
    environment = {
        **os.environ,
        sitecustomize.VARIABLE: str(job),
        "PYTHONPATH": str(Path(sitecustomize.__file__).parent),
    }
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    assert printed.stdout == b"changed\n"


@pytest.mark.timeout(300)
def test_three_mutants_of_the_memory_driver(tmp_path: Path) -> None:
    """The whole way: the sound driver, what its checks execute, mutants, report and last line."""
    command = [sys.executable, "-m", "tests.mutants", "--driver", "memory", "--count", "3"]
    command += ["--seed", "1", "--at-least", "0", "--report", str(tmp_path / "report.json")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    last = run.stdout.splitlines()[-1]
    assert re.fullmatch(r"mutants: seed=1 tried=3 caught=\d survived=\d equivalent=\d", last)
    report = json.loads((tmp_path / "report.json").read_text())
    counted = [each for each in report["mutants"] if each["outcome"] != BROKEN]
    assert len(counted) == 3
    assert all(each["diff"].startswith("@@") for each in counted)


def test_run_says_how_much_it_should_do() -> None:
    """Thousands of mutants take hours: nobody starts them by mistake."""
    command = [sys.executable, "-m", "tests.mutants", "--driver", "modest"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "--seconds, --count, --only or --all" in run.stderr
