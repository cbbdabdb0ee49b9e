"""Runs checks in a process of their own, with bounds on time and memory, and reads the outcome.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .drivers import ROOT, DriverUnderTest
from .forking import Forker
from .injected import sitecustomize
from .mutants import Mutant
from .outcomes import BROKEN, CAUGHT, HUNG, PASSED, SKIPPED, SURVIVED, UNREACHED

PATIENCE_SECONDS = 5.0
_MEMORY_BYTES = 4 * 2**30
_PRINTED = 4_000
_IMPORT = ""
_UNKNOWN_SECONDS = 5.0
_START_SECONDS = 60.0  # for imports and servers, on a loaded machine
_CHECK_SECONDS = 40.0  # at least, for one check: the kit itself finds a loop that is stuck
_SLOWER = 5.0  # so many times as long as on the sound driver may a check take
_OPTIONS = (
    *("-q", "-n", "0", "--no-header", "-p", "no:cacheprovider", "-p", "tests.mutants.plugin"),
    # Only these: looking for the plugins of all distributions takes half of the start.
    *("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "xdist.plugin"),
    # pytest needs longer to explain a difference than to find it.
    *("--assert=plain", "--tb=short", "-r", "N"),
    # Only the checks have to report what a mutant leaves behind.
    *("-W", "ignore", "-p", "no:unraisableexception", "-p", "no:threadexception"),
    *("-p", "no:logging"),
)


@dataclass(frozen=True, slots=True)
class Sound:
    """What a suite does with the driver as it is.

    Attributes:
        seconds: How long each check took that passed, by its name in pytest.
        lines: Which of these checks execute a line, by file and line; and ``""`` if the import
            does.
        skipped: The checks that were skipped.
        unsteady: Checks that failed once and passed with more patience; they judge nothing.
        total_seconds: How long all of it took.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, set[str]]]
    skipped: tuple[str, ...]
    unsteady: tuple[str, ...]
    total_seconds: float

    def executing(self, mutant: Mutant) -> list[str]:
        """Return the checks that execute a mutant's lines, quickest first.

        For what the import executes these are all, also those that the driver as it is skips.
        """
        of_file = self.lines.get(str(mutant.path), {})
        found: set[str] = set()
        for line in range(mutant.first_line, mutant.last_line + 1):
            found |= of_file.get(line, set())
        found &= {*self.seconds, _IMPORT}
        if _IMPORT in found or not mutant.is_called:
            # A driver that declares more is held to more.
            found = {*self.seconds, *self.skipped}
        return sorted(found, key=self.usual_seconds)

    def usual_seconds(self, check: str) -> float:
        """Return how long a check takes on the driver as it is, or might take if it is skipped."""
        return self.seconds.get(check, _UNKNOWN_SECONDS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        mutant: Which one.
        outcome: One of :mod:`tests.mutants.outcomes`.
        check: The check that failed or hung.
        reason: What it said.
        checks: The checks that execute the mutant's lines.
        ran: How many of them were run.
        seconds: How long it took.
    """

    mutant: Mutant
    outcome: str
    check: str = ""
    reason: str = ""
    checks: tuple[str, ...] = ()
    ran: int = 0
    seconds: float = 0.0


class UnsoundDriverError(Exception):
    """The suite fails, or has no checks, before anything was changed."""


@dataclass(slots=True)
class _Run:
    """The lines that the plugin wrote, and how the process ended."""

    lines: list[dict[str, Any]]
    status: int | None
    printed: str
    seconds: float
    checks: list[dict[str, Any]] = field(init=False)
    has_ended: bool = field(init=False)
    is_steady: bool = field(init=False)

    def __post_init__(self) -> None:
        self.checks = [line for line in self.lines if "check" in line]
        self.has_ended = any("ended" in line for line in self.lines)
        self.is_steady = any(line.get("virtual") for line in self.lines)


def observe(
    forker: Forker, driver: DriverUnderTest, *, patience: float = PATIENCE_SECONDS
) -> Sound:
    """Run a driver's suite on the driver as it is.

    Raises:
        UnsoundDriverError: A check fails twice, or there is none.
    """
    files = [str(driver.path(module)) for module in driver.modules]
    run = _run(forker, driver, measured=files, patience=patience, seconds=1800.0)
    passed = {each["check"]: each["seconds"] for each in run.checks if each["outcome"] == PASSED}
    failed = [each["check"] for each in run.checks if each["outcome"] in (CAUGHT, HUNG)]
    if not run.has_ended or not passed:
        raise UnsoundDriverError(
            f"the suite {driver.suite} did not run to its end; this was printed:\n{run.printed}"
        )
    if failed:
        # Once more, with all the patience that the kit has: a loaded machine is no fault.
        limits = dict.fromkeys(failed, 120.0)
        again = _run(forker, driver, limits=limits, patience=120.0, seconds=900.0)
        for each in again.checks:
            if each["outcome"] != PASSED:
                raise UnsoundDriverError(
                    f"{each['check']} fails on the driver as it is: {each['reason']}"
                )
    lines: dict[str, dict[int, set[str]]] = {}
    for line in run.lines:
        if "path" in line:
            of_file = lines.setdefault(line["path"], defaultdict(set))
            for number, checks in line["lines"].items():
                of_file[int(number)].update(checks)
    skipped = (each["check"] for each in run.checks if each["outcome"] == SKIPPED)
    return Sound(passed, lines, tuple(skipped), tuple(sorted(failed)), run.seconds)


def try_mutant(
    forker: Forker,
    driver: DriverUnderTest,
    mutant: Mutant,
    sound: Sound,
    *,
    patience: float = PATIENCE_SECONDS,
    check_seconds: float = _CHECK_SECONDS,
) -> Verdict:
    """Run the checks that execute a mutant's lines, until one fails: twice, if in real time.

    Args:
        forker: Where to run them.
        driver: The driver.
        mutant: One of its mutants.
        sound: What the suite does with the driver as it is.
        patience: Seconds for which a check waits for what it expects, at most.
        check_seconds: Seconds after which a check has hung; more, if it takes long with the driver
            as it is.
    """
    checks = tuple(sound.executing(mutant))
    if not mutant.compiles():
        return Verdict(mutant, BROKEN, reason="it does not compile, or changes nothing")
    if not checks:
        return Verdict(mutant, UNREACHED)
    limits = {name: check_seconds + _SLOWER * sound.usual_seconds(name) for name in checks}
    ran, seconds = 0, 0.0
    while True:
        bound = _START_SECONDS + _SLOWER * sum(map(sound.usual_seconds, limits))
        run = _run(forker, driver, mutant=mutant, limits=limits, patience=patience, seconds=bound)
        ran, seconds = ran + len(run.checks), seconds + run.seconds
        outcome, check, reason = _judged(run)
        if outcome == CAUGHT and not run.is_steady:
            # Once more: a check in real time may also fail because the machine is busy.
            once = {check: limits[check]}
            again = _run(
                forker, driver, mutant=mutant, limits=once, patience=2 * patience, seconds=bound
            )
            seconds += again.seconds
            if not any(each["outcome"] == CAUGHT for each in again.checks):
                names = list(limits)
                limits = {name: limits[name] for name in names[names.index(check) + 1 :]}
                if limits:
                    continue
                outcome, check, reason = SURVIVED, "", ""
        return Verdict(mutant, outcome, check, reason, checks, ran, seconds)


def _judged(run: _Run) -> tuple[str, str, str]:
    collected = next((line["collected"] for line in run.lines if "collected" in line), 0)
    if not collected:
        return BROKEN, "", run.printed
    for outcome in (CAUGHT, HUNG):
        for each in run.checks:
            if each["outcome"] == outcome:
                return outcome, each["check"], each["reason"]
    if not run.has_ended:
        how = "did not end in time" if run.status is None else f"ended with status {run.status}"
        return HUNG, "", f"the process {how} after {len(run.checks)} of {collected} checks"
    return SURVIVED, "", ""


def _run(
    forker: Forker,
    driver: DriverUnderTest,
    *,
    mutant: Mutant | None = None,
    limits: Mapping[str, float] | None = None,
    measured: Sequence[str] = (),
    patience: float,
    seconds: float,
) -> _Run:
    with tempfile.TemporaryDirectory(prefix="streamq-mutant-") as name:
        directory = Path(name)
        output, job = directory / "outcome", directory / "job"
        output.touch()
        job.write_text(
            json.dumps(
                {
                    "module": mutant.module if mutant else "",
                    "path": str(mutant.path) if mutant else "",
                    "text": mutant.source() if mutant else "",
                    "limits": limits,
                    "measured": list(measured),
                    "patience": patience,
                    "output": str(output),
                    "memory": _MEMORY_BYTES,
                }
            ),
            encoding="utf-8",
        )
        arguments = [*_OPTIONS, str(ROOT / driver.suite), "--basetemp", str(directory / "tmp")]
        arguments += ["-k", driver.keyword] if driver.keyword else []
        arguments += ["-m", "full"] if driver.is_full else []
        printed = directory / "printed"
        printed.touch()
        began = time.monotonic()
        status = forker.run(arguments, _environment(job), printed, seconds)
        text = printed.read_text(encoding="utf-8", errors="replace")[-_PRINTED:]
        lines = []
        for line in output.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # it was killed in the middle of the last one
                lines.append(json.loads(line))
        return _Run(lines, status, text, time.monotonic() - began)


def _environment(job: Path) -> dict[str, str]:
    paths = [str(Path(sitecustomize.__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {
        sitecustomize.VARIABLE: str(job),
        # For processes that checks start.
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "COVERAGE_CORE": "ctrace",  # others know no contexts
        # Threads in glibc's arenas reserve address space, which is bounded here.
        "MALLOC_ARENA_MAX": "2",
    }
