"""The contract on a backend that declares no capability."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .modest_driver import ModestHarness


class TestModest(DriverSuite):
    """The suite for a backend without any capability."""

    harness_type = ModestHarness
    virtual_time = True
