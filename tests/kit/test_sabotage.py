"""The conformance kit can fail: each sabotaged driver is caught by the checks that name its fault.

One run of pytest over ``sabotage/suites.py``, and then the outcomes are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamq.testing import DriverSuite
from streamq.testing.checks import ConsumingChecks, HidingChecks, ManyAppendChecks

from .sabotage.server import SoundQueue
from .sabotage.suites import CAUGHT_BY
from .sabotaged_runs import OPTIONS

pytestmark = pytest.mark.full  # four minutes: every check against every fault

# With xdist, another process uses the other core.
_PROCESSES = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
_DEADLINE_SECONDS = 540
_CONSUMING = {
    name.removeprefix("test_")
    for name in (*vars(ConsumingChecks), *vars(HidingChecks))
    if "test_" in name
}
_SOUND_SKIPS = {
    # Checks of backends that do not fence, or have no replay.
    "epochs_are_known_before_their_records",
    "idle_stale_writer_is_stopped",
    *_CONSUMING,
    # Checks of drivers that store for many streams at once.
    *(name.removeprefix("test_") for name in vars(ManyAppendChecks) if "test_" in name),
    "driver_is_found_by_its_name",
    "another_process_reads_ours_and_we_read_its",
    "takeover_by_another_process_in_the_middle_of_appends_is_clean",
    "stream_that_another_process_begins_again_and_again_is_never_mixed_up",
    # A check of drivers with threads.
    "threads_end_when_a_queue_is_closed_whose_loop_has_ended",
}

_NOT_TRIPPED = (
    # Another process cannot reach a server inside this one, so these are skipped here.
    "another_process_reads_ours_and_we_read_its",
    "takeover_by_another_process_in_the_middle_of_appends_is_clean",
    "stream_that_another_process_begins_again_and_again_is_never_mixed_up",
    # For drivers that a distribution registers, unlike these.
    "driver_is_found_by_its_name",
    # These test streamq's own core; no driver is involved.
    "declared_capabilities_can_be_required",
    "undeclared_capabilities_are_refused_at_open",
    "writers_refuse_a_backend_that_cannot_tell_attempts_apart",
    "attempt_that_resumes_or_replays_is_refused",
    "chunk_larger_than_a_record_is_refused",
    "tail_is_refused",
    # These are tripped by faults of our own drivers (test_own_drivers_sabotaged.py).
    "producer_lets_other_tasks_run",
    # This tests core's own deadline, with a scripted driver that never answers.
    "call_that_a_driver_never_answers_ends_at_the_deadline",
)


@dataclass(slots=True)
class Findings:
    """The outcomes of the checks of one suite, by name without parameters."""

    ran: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)


def _names(suite: type) -> Iterator[str]:
    return (name.removeprefix("test_") for name in dir(suite) if name.startswith("test_"))


@pytest.fixture(scope="module")
def findings(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, Findings]:
    """Run the whole kit against every queue; return the findings by the name of the queue."""
    directory = tmp_path_factory.mktemp("sabotaged")
    queues = [SoundQueue.__name__, *CAUGHT_BY]
    source = Path(__file__).with_name("sabotage") / "suites.py"
    runs = []
    for at in range(_PROCESSES):
        suites = [f"{source}::Test{name}" for name in queues[at::_PROCESSES]]
        report = directory / f"{at}.json"
        command = [sys.executable, "-m", "pytest", *OPTIONS, "--streamq-report", str(report)]
        command += ["--basetemp", str(directory / str(at)), *suites]
        # Into a file: a pipe is not read while this waits, and a full one would block the run.
        with (directory / f"{at}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=pytestconfig.rootpath, stdout=log, stderr=subprocess.STDOUT
            )
        runs.append((process, report))
    try:
        for process, report in runs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_DEADLINE_SECONDS)
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)  # pytest then prints the stack of every thread
                process.wait()
            said = report.with_suffix(".log").read_text(errors="replace")[-5_000:]
            assert process.returncode in (0, 1), said
    finally:
        for process, _ in runs:
            if process.poll() is None:
                process.kill()
                process.wait()
    found: defaultdict[str, Findings] = defaultdict(Findings)
    for _, report in runs:
        for suite in json.loads(report.read_text())["suites"]:
            of = found[suite["suite"].partition("::Test")[2]]
            for check in suite["checks"]:
                name = check["name"].removeprefix("test_").partition("[")[0]
                of.ran.add(name)
                if check["outcome"] != "passed":
                    (of.failed if check["outcome"] == "failed" else of.skipped).add(name)
    assert sorted(found) == sorted(queues)
    return found


@pytest.mark.timeout(_DEADLINE_SECONDS + 30)
def test_sound_driver_passes_everything(findings: dict[str, Findings]) -> None:
    """The checks must catch the fault of a sabotaged driver, not the driver below it."""
    sound = findings[SoundQueue.__name__]
    assert sound.failed == set()
    assert sound.skipped <= _SOUND_SKIPS
    assert sound.ran == set(_names(DriverSuite))


@pytest.mark.timeout(_DEADLINE_SECONDS + 30)
@pytest.mark.parametrize("name", CAUGHT_BY)
def test_fault_is_caught_by_the_checks_that_name_it(
    name: str, findings: dict[str, Findings]
) -> None:
    """A kit that never fails proves nothing. Checks that fail as a consequence may come and go."""
    assert CAUGHT_BY[name], f"{name} does not say what it is caught by"
    assert sorted({*CAUGHT_BY[name]} - findings[name].failed) == []


@pytest.mark.timeout(_DEADLINE_SECONDS + 30)
def test_nearly_every_check_is_tripped_by_some_fault(findings: dict[str, Findings]) -> None:
    """A check that cannot fail is useless, so each has to catch a fault."""
    tripped = {name for each in findings.values() for name in each.failed}
    assert sorted(set(_names(DriverSuite)) - tripped - set(_NOT_TRIPPED)) == []
