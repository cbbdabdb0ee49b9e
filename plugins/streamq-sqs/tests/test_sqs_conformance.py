"""The contract of drivers on SQS, as an emulator has it: FIFO and standard queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamq.testing import BackendHarness, DriverSuite
from streamq_aws.embedded import Ministack
from streamq_sqs import SqsDriver, SqsSettings


class SqsHarness(BackendHarness):
    """The emulator that all checks share."""

    driver = SqsDriver

    def __init__(self, directory: Path, server: Ministack, *, fifo: bool) -> None:
        super().__init__(directory)
        self._server = server
        self._fifo = fifo

    @property
    def label(self) -> str:
        """Say which kind of queues they are, and where."""
        return f"sqs ({'FIFO' if self._fifo else 'standard'} queues, ministack)"

    def settings(self) -> SqsSettings:
        """Return settings that lead to the emulator."""
        return SqsSettings(
            endpoint_url=self._server.url,
            fifo=self._fifo,
            visibility_seconds=2,
            max_message_bytes=262_144,
        )


class TestFifo(DriverSuite):
    """FIFO queues."""

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=True)


class TestStandard(DriverSuite):
    """Standard queues, which may give messages in another order, and twice."""

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=False)
