"""The contract on a backend that declares no capability."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .modest_driver import ModestHarness


class TestModest(DriverSuite):
    """All that is left of the contract when nothing is declared."""

    harness_type = ModestHarness
    virtual_time = True
