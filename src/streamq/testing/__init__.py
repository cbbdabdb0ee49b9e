"""The conformance kit: what the author of a driver proves it with, and tools for testing on top.

Needs the extra ``testing`` (pytest, pytest-asyncio); nothing else in streamq imports it.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__name__}.checks", f"{__name__}._cancellation")

from ._fault_proxy import Direction, FaultProxy  # noqa: E402 - asserts are registered first
from ._faulty_queue import FaultyQueue  # noqa: E402
from ._fixtures import (  # noqa: E402
    OpenWith,
    open_queue_fixture,
    open_with_fixture,
    stream_fixture,
)
from ._harness import MANDATORY_HOOKS, BackendHarness, OpenQueue, queue_factory  # noqa: E402
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
from .checks._records import new_stream  # noqa: E402

__all__ = [
    "MANDATORY_HOOKS",
    "BackendHarness",
    "Block",
    "Call",
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
    "ServerHarness",
    "StorePrefix",
    "Twice",
    "VirtualTimeLoop",
    "needs",
    "new_stream",
    "open_queue_fixture",
    "open_with_fixture",
    "queue_factory",
    "requires",
    "run_in_virtual_time",
    "stream_fixture",
]
