"""The contract on a backend where what is read is gone, as on SQS."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .mailbox_driver import MailboxHarness


class TestMailbox(DriverSuite):
    """What SQS has to keep, without SQS."""

    harness_type = MailboxHarness
    virtual_time = True
