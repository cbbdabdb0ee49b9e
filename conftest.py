"""For every test of the workspace."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest

pytest_plugins = ["streamq.testing.plugin", "pytester"]

_NOTES = pytest.StashKey[dict[str, list[str]]]()

# A shell starts background jobs with SIGINT ignored. Processes that tests start would inherit that,
# and the tests that interrupt them would fail.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Return a function that adds to the end of the run's output: what it is about, and a text."""
    notes = pytestconfig.stash[_NOTES]

    def note(about: str, text: str) -> None:
        notes.setdefault(about, []).append(text)

    return note


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no notes."""
    config.stash[_NOTES] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the notes of a process that runs a part of the tests to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["notes"] = session.config.stash[_NOTES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the notes of such a process; one that has crashed leaves none."""
    for about, texts in getattr(node, "workeroutput", {}).get("notes", {}).items():
        node.config.stash[_NOTES].setdefault(about, []).extend(texts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the notes, each of them once."""
    for about, texts in sorted(terminalreporter.config.stash[_NOTES].items()):
        terminalreporter.write_line(f"{about}: {', '.join(sorted(set(texts)))}")
