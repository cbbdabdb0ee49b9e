"""The contract on a backend that does not fence: readers tell attempts apart by the order."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .log_driver import LogHarness


class TestLog(DriverSuite):
    """What Kafka has to keep, without Kafka."""

    harness_type = LogHarness
    virtual_time = True
