"""The contract on a backend without replay, like SQS."""

from __future__ import annotations

from streamq.testing import DriverSuite

from .mailbox_driver import MailboxHarness


class TestMailbox(DriverSuite):
    """The suite for a backend like SQS, without SQS."""

    harness_type = MailboxHarness
    virtual_time = True
