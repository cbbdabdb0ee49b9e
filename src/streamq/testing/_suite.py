"""The conformance suite: every group of checks in one class."""

from __future__ import annotations

import pytest

from .checks import (
    AttemptChecks,
    BasicChecks,
    ConsumingChecks,
    DeclarationChecks,
    EndingChecks,
    ExpiryChecks,
    FaultChecks,
    LateJoinChecks,
    LifecycleChecks,
    LimitChecks,
    ListingChecks,
    OrderingChecks,
    RefusalChecks,
    ReplayChecks,
    TrimmingChecks,
    WaitingChecks,
)


class DriverSuite(
    # pytest runs the checks of the last base first: what everything else stands on.
    ListingChecks,
    ExpiryChecks,
    WaitingChecks,
    DeclarationChecks,
    RefusalChecks,
    LimitChecks,
    FaultChecks,
    LifecycleChecks,
    AttemptChecks,
    EndingChecks,
    TrimmingChecks,
    ConsumingChecks,
    LateJoinChecks,
    ReplayChecks,
    OrderingChecks,
    BasicChecks,
):
    """Everything that :mod:`streamq.driver` demands, one test for each guarantee.

    Subclass it in a driver's own tests. What the opened queue declares is mandatory; checks of
    other capabilities are skipped with the reason. Every check uses streams of its own, so that a
    shared server needs no cleaning.

    Example:
        ::

            class MemoryHarness(BackendHarness):
                driver = MemoryDriver

                def settings(self) -> MemorySettings:
                    return MemorySettings(store=str(self.directory))


            class TestMemory(DriverSuite):
                harness_type = MemoryHarness
                virtual_time = True
    """

    pytestmark = pytest.mark.asyncio
