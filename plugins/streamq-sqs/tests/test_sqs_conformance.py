"""The contract of drivers on SQS, as an emulator has it: FIFO and standard queues."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from streamq.devserver import DevServer, free_port
from streamq.driver import StreamId
from streamq.testing import BackendHarness, DriverSuite, FaultProxy
from streamq_aws.embedded import REGION, Ministack
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._messages import ATTRIBUTE, record_of
from streamq_sqs._naming import QueueNames


class SqsHarness(BackendHarness):
    """The emulator that all checks share, behind a proxy of the check's."""

    driver = SqsDriver
    answer_seconds = 6.0
    patience_seconds = 30.0

    def __init__(self, directory: Path, server: DevServer, *, fifo: bool) -> None:
        super().__init__(directory)
        self.server = server
        self.proxy = FaultProxy("127.0.0.1", server.port, half_closes=False)
        self.prefix = f"t{uuid.uuid4().hex[:8]}-"  # a sweep looks at every queue with it
        self._fifo = fifo

    @property
    def label(self) -> str:
        """Say which kind of queues they are, and where."""
        return f"sqs ({'FIFO' if self._fifo else 'standard'} queues, {self.server.backend})"

    def settings(self) -> SqsSettings:
        """Return settings that lead to the emulator, with deadlines that suit a test."""
        return self._settings_at(f"http://{self.proxy.address}")

    def _settings_at(self, url: str) -> SqsSettings:
        return SqsSettings(
            endpoint_url=url,
            queue_prefix=self.prefix,
            fifo=self._fifo,
            visibility_seconds=2,
            hold_seconds=4,
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=2.0,
            max_message_bytes=262_144,  # all that ministack takes
        )

    async def start(self) -> None:
        """Put a proxy in front of the emulator."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Take the proxy away."""
        await self.proxy.aclose()

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Take the messages and give them back."""
        client: Any = botocore.session.get_session().create_client(
            "sqs",
            region_name=REGION,
            endpoint_url=f"http://{self.server.address}",
            aws_access_key_id="streamq",
            aws_secret_access_key="streamq",
        )
        name = QueueNames(self.prefix, fifo=self._fifo).queue(stream)
        try:
            url = client.get_queue_url(QueueName=name)["QueueUrl"]
        except client.exceptions.QueueDoesNotExist:
            return []
        found: dict[str, bytes] = {}
        while answer := client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=[ATTRIBUTE]
        ).get("Messages"):
            found |= {each["ReceiptHandle"]: record_of(each) or b"" for each in answer}
        for receipt in found:
            client.change_message_visibility(
                QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0
            )
        return list(found.values())

    async def break_connections(self) -> None:
        """Reset them at both ends."""
        self.proxy.cut()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Keep every answer back, and every request."""
        self.proxy.delay_seconds = seconds / 2
        try:
            yield
        finally:
            self.proxy.heal()

    async def restart(self) -> None:
        """Amazon's service cannot be restarted, and the emulator keeps its messages in memory."""
        pytest.skip("SQS cannot be restarted, and its emulator forgets: nothing here to prove")

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Stop the process: the kernel accepts connections, and nobody answers."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    def unreachable(self) -> SqsSettings:
        """Return settings for a port where nobody listens."""
        return self._settings_at(f"http://127.0.0.1:{free_port()}")


class TestFifo(DriverSuite):
    """FIFO queues."""

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=True)


class TestStandard(DriverSuite):
    """Standard queues, which may give messages in another order, and twice."""

    # They take long, and it is the same whatever the queues are.
    test_listing_is_complete_beyond_one_page = None  # type: ignore[assignment]
    test_many_streams_are_read_at_once = None  # type: ignore[assignment]

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=False)


class TestElasticMq(DriverSuite):
    """FIFO queues as another implementation has them."""

    test_listing_is_complete_beyond_one_page = None  # type: ignore[assignment]
    test_many_streams_are_read_at_once = None  # type: ignore[assignment]

    @pytest.fixture
    def harness(self, tmp_path: Path, elasticmq: DevServer) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, elasticmq, fifo=True)


class RealHarness(BackendHarness):
    """The account that the environment leads to."""

    driver = SqsDriver
    patience_seconds = 30.0

    def __init__(self, directory: Path, *, fifo: bool) -> None:
        super().__init__(directory)
        self._fifo = fifo

    @property
    def label(self) -> str:
        """Say what it is."""
        return f"sqs ({'FIFO' if self._fifo else 'standard'} queues, a real account)"

    def settings(self) -> SqsSettings:
        """Return settings with a prefix of their own, by which what is left can be found."""
        return SqsSettings(
            fifo=self._fifo, visibility_seconds=2, hold_seconds=4, queue_prefix="streamq-test-"
        )

    async def break_connections(self) -> None:
        """Nothing stands between us and Amazon that could."""
        pytest.skip("no proxy in front of a real account")

    def hang(self) -> AbstractAsyncContextManager[None]:
        """Amazon does not hang for us."""
        pytest.skip("a real account cannot be made to hang")

    async def restart(self) -> None:
        """Amazon restarts nothing for us."""
        pytest.skip("a real account cannot be restarted")

    def unreachable(self) -> SqsSettings:
        """Return settings for a port where nobody listens."""
        return SqsSettings(endpoint_url=f"http://127.0.0.1:{free_port()}", fifo=self._fifo)


if os.environ.get("STREAMQ_TEST_AWS") == "1":

    @pytest.mark.parametrize("fifo", [True, False], ids=["fifo", "standard"])
    class TestRealAccount(DriverSuite):
        """Amazon's own service; the queues that are left go with a later `streamq sweep`."""

        @pytest.fixture
        def real_account(self) -> None:
            """Keep the environment as it is."""

        @pytest.fixture
        def harness(self, tmp_path: Path, real_account: None, fifo: bool) -> RealHarness:
            """Return the harness."""
            return RealHarness(tmp_path, fifo=fifo)

else:

    def test_real_account() -> None:
        """Only Amazon's own service proves what emulators only imitate."""
        pytest.skip("STREAMQ_TEST_AWS is not 1: no real account may be used")
