"""Combines all groups of checks into one class, the conformance suite."""

from __future__ import annotations

import pytest

from .checks import (
    AttemptChecks,
    BasicChecks,
    CancellingChecks,
    ConnectionChecks,
    ConsumingChecks,
    CountingChecks,
    DeclarationChecks,
    EndingChecks,
    ExpiredChecks,
    ExpiryChecks,
    FaultChecks,
    FencingChecks,
    HidingChecks,
    LateJoinChecks,
    LeavingChecks,
    LifecycleChecks,
    LimitChecks,
    ListingChecks,
    ManyAppendChecks,
    OrderingChecks,
    OutageChecks,
    PageChecks,
    ProcessChecks,
    RaceChecks,
    RefusalChecks,
    ReplayChecks,
    TimingChecks,
    TrimmingChecks,
    WaitingChecks,
    WakingChecks,
)


class DriverSuite(
    # pytest runs the checks of the last base first. The basics come last in this list.
    ListingChecks,
    ExpiredChecks,
    ExpiryChecks,
    TimingChecks,
    WakingChecks,
    WaitingChecks,
    ProcessChecks,
    DeclarationChecks,
    RefusalChecks,
    LimitChecks,
    OutageChecks,
    FaultChecks,
    LeavingChecks,
    CancellingChecks,
    LifecycleChecks,
    RaceChecks,
    AttemptChecks,
    ManyAppendChecks,
    FencingChecks,
    EndingChecks,
    TrimmingChecks,
    HidingChecks,
    ConsumingChecks,
    LateJoinChecks,
    ConnectionChecks,
    PageChecks,
    ReplayChecks,
    OrderingChecks,
    CountingChecks,
    BasicChecks,
):
    """Tests everything that :mod:`streamq.driver` demands, one test for each guarantee.

    Subclass it in a driver's own tests. The capabilities that the opened queue declares are
    mandatory; checks of other capabilities are skipped with the reason. Every check uses streams of
    its own, so that a shared server needs no cleaning.

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
