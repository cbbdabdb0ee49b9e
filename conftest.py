"""Configures the tests of the whole workspace, and prints the notes that tests make."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

pytest_plugins = [
    *("streamq.testing.plugin", "streamq.testing.memory", "pytester"),
    "tests.gateway.browsers",
]

# Checks of the kit that take long on these servers. They are the same on every driver, and stay in
# the quick suite on the others.
_MANY = "test_many_streams_are_read_at_once"
_INTERLEAVED = "test_interleaved_writers_of_many_streams"
_TAKEOVER = "test_takeover_by_another_process_in_the_middle_of_appends_is_clean"
_OTHER_LIVES = "test_stream_that_another_process_begins_again_and_again_is_never_mixed_up"
_SUBSCRIBERS = "test_subscribers_that_come_and_go_leave_nothing"
_OPENING = "test_opening_leaves_nothing_if_it_is_cancelled_again_and_again"
_PREFIX = "test_prefix_is_taken_literally"
_PAGES = "test_listing_is_complete_beyond_one_page"
_LONG_CHECKS = {
    "TestMinistack": {
        *(_MANY, _INTERLEAVED, _TAKEOVER, _OTHER_LIVES, _SUBSCRIBERS),
        "test_opening_a_writer_can_be_cancelled_at_any_await",
        "test_read_can_be_cancelled_at_any_await",
    },
    "TestWorkflowStreams": {
        *(_MANY, _INTERLEAVED, _TAKEOVER, _OTHER_LIVES, _SUBSCRIBERS, _PREFIX, _PAGES)
    },
    "TestFifo": {_MANY, _INTERLEAVED, _SUBSCRIBERS, _OPENING, _PREFIX, _PAGES},
    "TestPostgres": {_OTHER_LIVES, _SUBSCRIBERS},
    "TestApacheKafka": {_MANY},
}

_NOTES = pytest.StashKey[dict[str, list[str]]]()

# A shell starts background jobs with SIGINT ignored. Processes that tests start would inherit that,
# and the tests that interrupt them would fail.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The duration of an example depends on the load of the machine.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Return a function that adds a note (subject, text) to the end of the output of the run."""
    notes = pytestconfig.stash[_NOTES]

    def note(about: str, text: str) -> None:
        notes.setdefault(about, []).append(text)

    return note


@pytest.fixture
def pytester(pytester: pytest.Pytester) -> pytest.Pytester:
    """Start every run without a plugin that takes a second to import, as this run is."""
    pytester.plugins.append("no:langsmith_plugin")
    return pytester


def pytest_configure(config: pytest.Config) -> None:
    """Start without notes, and start processes with the default for SIGHUP, even under nohup.

    A handler is not inherited as "ignore" is, and lets this process survive the signal as before.
    A process that only starts workers leaves it to them: they would not survive.
    """
    config.stash[_NOTES] = {}
    is_worker = hasattr(config, "workerinput")
    starts_workers = bool(config.getoption("numprocesses", None)) and not is_worker
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and not starts_workers:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.hookimpl(tryfirst=True)  # before markers select tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave checks that take long on some servers to ``make test-full``."""
    for item in items:
        cls = item.cls if isinstance(item, pytest.Function) else None
        if cls is not None and item.name in _LONG_CHECKS.get(cls.__name__, ()):
            item.add_marker(pytest.mark.full)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile | None:
    """Deal out files; those of Kafka together, whose server takes longest to start."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


class _ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives the tests of a file to one process."""

    def _split_scope(self, nodeid: str) -> str:
        kafka = "plugins/streamq-kafka/tests/"
        return kafka if nodeid.startswith(kafka) else str(super()._split_scope(nodeid))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the notes of a worker process to the process that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["notes"] = session.config.stash[_NOTES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive the notes of a worker process; one that has crashed sends none."""
    for about, texts in getattr(node, "workeroutput", {}).get("notes", {}).items():
        node.config.stash[_NOTES].setdefault(about, []).extend(texts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every note once."""
    for about, texts in sorted(terminalreporter.config.stash[_NOTES].items()):
        terminalreporter.write_line(f"{about}: {', '.join(sorted(set(texts)))}")
