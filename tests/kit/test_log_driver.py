"""The contract on a backend that does not fence: readers tell attempts apart by the order."""

from __future__ import annotations

from streamq.testing import BackendHarness, DriverSuite

from .log_driver import LogDriver, LogSettings


class LogHarness(BackendHarness):
    """A log of the check's own."""

    driver = LogDriver

    def settings(self) -> LogSettings:
        """Return settings that lead to it."""
        return LogSettings(store=str(self.directory))

    async def stop(self) -> None:
        """Forget the log."""
        LogDriver.logs.pop(str(self.directory), None)


class TestLog(DriverSuite):
    """What Kafka has to keep, without Kafka."""

    harness_type = LogHarness
    virtual_time = True
