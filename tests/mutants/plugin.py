"""Runs the chosen checks in the chosen order, writes down each outcome, and stops when one fails.

A plugin of pytest for the processes that :mod:`tests.mutants.running` starts. Its orders are in the
file that the environment variable ``STREAMQ_MUTANT`` names.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from streamq.testing import BackendHarness

from .injected.sitecustomize import VARIABLE
from .outcomes import CAUGHT, HUNG, PASSED, SKIPPED

if TYPE_CHECKING:
    import coverage

_TIMED_OUT = "Timeout ("
_MOST_HUNG = 3
_EARLIER_SECONDS = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Read the orders."""
    job = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="utf-8"))
    config.pluginmanager.register(Judge(job), "streamq-mutants")


class Judge:
    """Chooses checks and records what they say.

    Args:
        job: As :class:`tests.mutants.running.Job` has it.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._limits: dict[str, float] | None = job["limits"]
        self._patience: float = job["patience"]
        # Until the process ends.
        self._output: TextIO = Path(job["output"]).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._hung = 0
        self._began = 0.0
        self._worst: tuple[str, str] = (PASSED, "")
        self._coverage: coverage.Coverage | None = None
        if job["measured"]:
            import coverage  # not for each mutant

            self._coverage = coverage.Coverage(data_file=None, include=job["measured"])
            self._coverage.start()
        self._check_seconds = math.inf
        self._shorten_patience()

    def write(self, **line: object) -> None:
        """Write a line of the outcome, which is there even if this process is killed."""
        self._output.write(json.dumps(line) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the kit's own checks, those that are wanted, in the order that is wanted."""
        items[:] = [item for item in items if _is_of_the_kit(item)]
        if self._limits is not None:
            found = {item.nodeid: item for item in items}
            items[:] = [found[name] for name in self._limits if name in found]
            for item in items:
                item.add_marker(pytest.mark.timeout(self._limits[item.nodeid]), append=False)
        virtual = all(map(_is_virtual, items))
        self.write(collected=len(items), virtual=virtual)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Measure what one check executes, from its first fixture to the end of its last."""
        if self._coverage is not None:
            self._coverage.switch_context(item.nodeid)
        self._began, self._worst = time.monotonic(), (PASSED, "")
        if self._limits is not None and not _is_virtual(item):
            # The kit's own deadline of a check comes before that of this run.
            self._check_seconds = self._limits[item.nodeid] - _EARLIER_SECONDS
        try:
            return (yield)
        finally:
            outcome, reason = self._worst
            self.write(
                check=item.nodeid,
                outcome=outcome,
                reason=reason,
                seconds=round(time.monotonic() - self._began, 3),
            )
            self._hung += outcome == HUNG
            if self._limits is not None and (outcome == CAUGHT or self._hung == _MOST_HUNG):
                item.session.shouldstop = outcome

    def _shorten_patience(self) -> None:
        """Let checks give up sooner: a sound driver needs a small part of their usual patience."""
        prepare: Callable[..., None] = BackendHarness.__init__

        @functools.wraps(prepare)
        def prepare_sooner(harness: Any, *args: Any, **options: Any) -> None:
            prepare(harness, *args, **options)
            harness.patience_seconds = min(harness.patience_seconds, self._patience)
            harness.check_seconds = min(harness.check_seconds, self._check_seconds)

        setattr(BackendHarness, "__init__", prepare_sooner)  # noqa: B010 - for the type checker

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the worst of what the parts of a check report."""
        if report.failed and self._worst[0] in (PASSED, SKIPPED):
            said = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", ""))
            said = said or str(report.longrepr).strip().rpartition("\n")[2]
            is_hung = _TIMED_OUT in said.partition("\n")[0] or said.startswith("MemoryError")
            self._worst = (HUNG if is_hung else CAUGHT, said[:600])
        elif report.skipped and self._worst[0] == PASSED:
            self._worst = (SKIPPED, "")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write which lines each check has executed, and that this is the end."""
        if self._coverage is not None:
            self._coverage.stop()
            data = self._coverage.get_data()
            for path in data.measured_files():
                self.write(path=path, lines=data.contexts_by_lineno(path))
        self.write(ended=True)


def _is_of_the_kit(item: pytest.Item) -> bool:
    """Whether it is a check of the kit, and none that the suite's author has added."""
    function = getattr(item, "function", None)
    return str(getattr(function, "__module__", "")).startswith("streamq.testing.")


def _is_virtual(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "cls", None), "virtual_time", False))
