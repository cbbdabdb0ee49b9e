"""The pytest plugin of the kit: virtual time for suites that request it, and the capability report.

Enable it in the top ``conftest.py``::

    pytest_plugins = ["streamq.testing.plugin"]

Options:
    ``--streamq-report FILE``: write the capability report as JSON to a file, and print it as tables
    at the end of the run. ``-v`` prints the tables, too.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ExceptionRepr

from ._catalogue import group_of, guarantee_of
from ._failures import BEFORE, TITLE, explain_failure, explain_start
from ._report import FAILED, PASSED, SKIPPED, CheckOutcome, Report
from ._virtual_time import VirtualTimeLoop
from .checks._base import OPENED, Checks
from .checks._conditions import conditions_of
from .checks._promises import promises_of

_OPTION = "--streamq-report"
_ATTRIBUTE = "streamq_check"
_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the report."""
    parser.getgroup("streamq").addoption(
        _OPTION,
        metavar="FILE",
        help="write the results of the conformance suites to FILE, as JSON, and print tables",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin a report."""
    config.stash[_REPORT] = Report()
    config.pluginmanager.register(_Collector(config.stash[_REPORT]), "streamq-report")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Generator[
    None,
    Mapping[str, type[asyncio.AbstractEventLoop]] | None,
    Mapping[str, object],
]:
    """Run the checks of a suite with ``virtual_time = True`` on a :class:`VirtualTimeLoop`."""
    others = yield
    suite = getattr(item, "cls", None)
    if suite is not None and issubclass(suite, Checks) and suite.virtual_time:
        return {"virtual time": VirtualTimeLoop}
    # Where this hook exists, pytest-asyncio needs a result of it for every test.
    return others or {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the facts about a check to its test report, so that another process can count it.

    The report of a failure gets a section with what the contract says.
    """
    report = yield
    suite = getattr(item, "cls", None)
    if isinstance(item, pytest.Function) and suite is not None and issubclass(suite, Checks):
        label, declared = item.stash.get(OPENED, ("", None))
        if report.failed and call.excinfo is not None:
            _explain(report, item, call.excinfo.value, label)
        if report.skipped and isinstance(report.longrepr, tuple):
            report.longrepr = (*(_place_of(suite) or report.longrepr[:2]), report.longrepr[2])
        setattr(
            report,
            _ATTRIBUTE,
            {
                "suite": f"{item.nodeid.partition('::')[0]}::{suite.__qualname__}",
                "backend": label,
                "name": item.name,
                "group": group_of(suite, item.function.__name__),
                "guarantee": guarantee_of(item.function),
                "capabilities": conditions_of(item.function).capabilities,
                "promises": [(p.where, p.sentence) for p in promises_of(item.function)],
                "declared": declared,
            },
        )
    return report


@functools.cache
def _place_of(suite: type) -> tuple[str, int] | None:
    """Return file and line of a suite; ``None`` for one that was made by a call.

    As the place of each skip they let pytest print one line for all checks with the same reason.
    """
    try:
        return inspect.getfile(suite), inspect.getsourcelines(suite)[1]
    except (OSError, TypeError, SystemError):  # Python 3.11 now and then fails to parse a file
        return None


def _explain(
    report: pytest.TestReport, item: pytest.Function, error: BaseException, label: str
) -> None:
    """Add the section that explains a failure."""
    if report.when == "call":
        title, text = (
            TITLE,
            explain_failure(
                error, promises_of(item.function), guarantee_of(item.function), item.nodeid
            ),
        )
    else:
        title, text = BEFORE, explain_start(error, label) if report.when == "setup" else None
    if text is None:
        return
    # Part of the failure, not of the captured output, which options may hide.
    if isinstance(report.longrepr, ExceptionRepr):
        report.longrepr.addsection(title, text, "-")
    else:
        report.sections.append((title, text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables and write the file, if requested."""
    config = terminalreporter.config
    report, path = config.stash[_REPORT], config.getoption(_OPTION)
    if path:
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")
    if not path and config.get_verbosity() <= 0:
        return
    for suite in report.suites():
        terminalreporter.section(f"streamq conformance: {suite.backend or 'not opened'}")
        terminalreporter.write_line(suite.suite)
        terminalreporter.write_line("")
        for line in suite.lines():
            terminalreporter.write_line(line)
    if path:
        terminalreporter.write_line("")
        terminalreporter.write_line(f"streamq conformance report written to {path}")


class _Collector:
    """Collects the test reports of checks, including those that another process sends."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        check: dict[str, Any] | None = getattr(report, _ATTRIBUTE, None)
        if check is None or (report.passed and report.when != "call"):
            return
        facts = {
            **check,
            "capabilities": tuple(check["capabilities"]),
            "promises": tuple((where, sentence) for where, sentence in check["promises"]),
        }
        outcome, reason = PASSED, ""
        if report.skipped:
            outcome, reason = SKIPPED, _reason(report)
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            outcome = FAILED
            reason = str(getattr(crash, "message", report.longrepr)).partition("\n")[0]
        self._report.add(CheckOutcome(node=report.nodeid, outcome=outcome, reason=reason, **facts))


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", report.longrepr))
