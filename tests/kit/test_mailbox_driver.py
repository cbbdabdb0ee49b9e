"""The contract on a backend where what is read is gone, as on SQS."""

from __future__ import annotations

from streamq.testing import BackendHarness, DriverSuite

from .mailbox_driver import MailboxDriver, MailboxSettings


class MailboxHarness(BackendHarness):
    """A store of the check's own."""

    driver = MailboxDriver

    def settings(self) -> MailboxSettings:
        """Return settings that lead to it."""
        return MailboxSettings(store=str(self.directory))

    async def stop(self) -> None:
        """Forget the store."""
        MailboxDriver.posts.pop(str(self.directory), None)


class TestMailbox(DriverSuite):
    """What SQS has to keep, without SQS."""

    harness_type = MailboxHarness
    virtual_time = True
