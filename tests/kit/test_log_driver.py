"""The contract on a backend that does not fence; readers distinguish attempts by order."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .log_driver import LogHarness


class TestLog(DriverSuite):
    """The suite for a backend like Kafka, without Kafka."""

    harness_type = LogHarness
    virtual_time = True
