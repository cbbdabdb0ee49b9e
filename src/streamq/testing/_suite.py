"""The conformance suite: every group of checks in one class."""

from __future__ import annotations

import pytest

from ._attempts import AttemptChecks
from ._basics import BasicChecks
from ._consuming import ConsumingChecks
from ._declarations import DeclarationChecks
from ._endings import EndingChecks
from ._expiry import ExpiryChecks
from ._faults import FaultChecks
from ._late_join import LateJoinChecks
from ._lifecycle import LifecycleChecks
from ._limits import LimitChecks
from ._listing import ListingChecks
from ._ordering import OrderingChecks
from ._refusals import RefusalChecks
from ._replay import ReplayChecks
from ._trimming import TrimmingChecks
from ._waiting import WaitingChecks


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
