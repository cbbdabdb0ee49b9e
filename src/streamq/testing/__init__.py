"""The conformance kit that proves a driver, and a test kit for applications that use streamq.

Needs the extra ``testing`` (pytest, pytest-asyncio); nothing else in streamq imports it. What is
for activities needs Temporal's SDK as well, and is imported when it is first used: drivers and
applications without Temporal do without it.

* ``_suite``, ``checks/``: the conformance suite and its groups of checks.
* ``_harness``, ``_server_harness``: the harness that connects the suite to a backend.
* ``_fixtures``: fixtures for the ``conftest.py`` of a driver.
* ``plugin``, ``_report``, ``_catalogue``: the pytest plugin, its report, facts about all checks.
* ``_contract``: the sentences of the contract, which checks quote.
* ``_broken_promise``, ``_failures``: a failure, and the section that explains it.
* ``_await_stacks``, ``_shown``: where calls wait, and values as messages show them.
* ``_faulty_queue``, ``_queue_faults``: a queue that fails by script, and its faults.
* ``_fault_proxy``: a TCP proxy that breaks connections.
* ``_virtual_time``: an event loop whose clock jumps.
* ``_cancellation``: cancels a call at every await.
* ``memory``: the pytest plugin for applications: a backend in memory for each test.
* ``applications/``: records what one's own activities stream.

Design: docs/design/testing.md, docs/design/testing-applications.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import pytest
except ModuleNotFoundError as exc:
    _missing = "streamq.testing needs pytest; run: pip install 'streamq[testing]'"
    raise ModuleNotFoundError(_missing, name=exc.name) from None

pytest.register_assert_rewrite(f"{__name__}.checks", f"{__name__}._cancellation")

from ._broken_promise import BrokenPromiseError  # noqa: E402 - asserts are registered first
from ._fault_proxy import Direction, FaultProxy  # noqa: E402
from ._faulty_queue import FaultyQueue  # noqa: E402
from ._fixtures import (  # noqa: E402
    open_queue_fixture,
    open_with_fixture,
    stream_fixture,
)
from ._harness import MANDATORY_HOOKS, BackendHarness, OpenQueue, OpenWith, queue_factory  # noqa: E402
from ._queue_faults import (  # noqa: E402
    Block,
    Call,
    Delay,
    Empty,
    Fail,
    Fault,
    Forward,
    LoseAcknowledgement,
    Pass,
    StorePrefix,
    Twice,
)
from ._server_harness import ServerHarness  # noqa: E402
from ._suite import DriverSuite  # noqa: E402
from ._virtual_time import DeadlockError, VirtualTimeLoop, run_in_virtual_time  # noqa: E402
from .checks._conditions import needs, requires  # noqa: E402
from .checks._promises import promises  # noqa: E402
from .checks._records import new_stream  # noqa: E402

if TYPE_CHECKING:
    from .applications import (
        CancelReason,
        Recorded,
        RecordedAttempt,
        RecordedStream,
        RecordingWriter,
        RecordOptions,
        ScriptedError,
        outline,
        record,
        recording_writer,
    )

_OF_APPLICATIONS = {
    "CancelReason",
    "RecordOptions",
    "Recorded",
    "RecordedAttempt",
    "RecordedStream",
    "RecordingWriter",
    "ScriptedError",
    "outline",
    "record",
    "recording_writer",
}

if not TYPE_CHECKING:  # to a type checker, any name would exist

    def __getattr__(name: str) -> Any:
        """Import the part for activities, with Temporal's SDK, when a name of it is first used."""
        if name not in _OF_APPLICATIONS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{__name__}.applications"), name)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.partition(".")[0] != "temporalio":
                raise
            raise ImportError(
                f"streamq.testing.{name} needs Temporal's SDK; run: pip install 'streamq[temporal]'"
            ) from exc


__all__ = [
    "MANDATORY_HOOKS",
    "BackendHarness",
    "Block",
    "BrokenPromiseError",
    "Call",
    "CancelReason",
    "DeadlockError",
    "Delay",
    "Direction",
    "DriverSuite",
    "Empty",
    "Fail",
    "Fault",
    "FaultProxy",
    "FaultyQueue",
    "Forward",
    "LoseAcknowledgement",
    "OpenQueue",
    "OpenWith",
    "Pass",
    "RecordOptions",
    "Recorded",
    "RecordedAttempt",
    "RecordedStream",
    "RecordingWriter",
    "ScriptedError",
    "ServerHarness",
    "StorePrefix",
    "Twice",
    "VirtualTimeLoop",
    "needs",
    "new_stream",
    "open_queue_fixture",
    "open_with_fixture",
    "outline",
    "promises",
    "queue_factory",
    "record",
    "recording_writer",
    "requires",
    "run_in_virtual_time",
    "stream_fixture",
]
