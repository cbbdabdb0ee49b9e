"""The driver contract on emulators of SQS, with FIFO and standard queues."""

from __future__ import annotations

import base64
import os
import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from streamq.devserver import DevServer, free_port
from streamq.driver import ChunkQueue, StreamId
from streamq.testing import BackendHarness, DriverSuite, ServerHarness
from streamq_aws.embedded import REGION, Ministack
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._messages import ATTRIBUTE, record_of
from streamq_sqs._naming import QueueNames
from streamq_sqs._tags import identity_tags

_HUGE = {"streamq:ttl": "1e300"}


class SqsHarness(ServerHarness[DevServer, SqsSettings]):
    """An emulator that all checks share, behind a proxy of each check.

    Args:
        directory: An empty directory that belongs to this check.
        server: The emulator.
        fifo: Whether queues are FIFO queues.
    """

    driver = SqsDriver
    answer_seconds = 6.0
    patience_seconds = 30.0

    def __init__(self, directory: Path, server: DevServer, *, fifo: bool) -> None:
        super().__init__(directory, server, half_closes=False)
        self.prefix = f"t{uuid.uuid4().hex[:8]}-"  # a sweep checks every queue with this prefix
        self._fifo = fifo

    @property
    def label(self) -> str:
        """Name the kind of queues and the emulator."""
        return f"sqs ({'FIFO' if self._fifo else 'standard'} queues, {self.server.backend})"

    def settings_at(self, address: str) -> SqsSettings:
        """Return settings that lead to an address, with deadlines that suit a test."""
        return SqsSettings(
            endpoint_url=f"http://{address}",
            queue_prefix=self.prefix,
            fifo=self._fifo,
            visibility_seconds=2,
            hold_seconds=4,
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=2.0,
            max_message_bytes=262_144,  # the most that ministack accepts
        )

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Receive the messages and make them visible again."""
        client = self._client()
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

    async def plant(self, tenant: str) -> None:
        """Create queues with the names of streams, whose tags name none."""
        client, start = self._client(), QueueNames(self.prefix, fifo=False).tenant(tenant)
        names = (b"", b"l\xff", b"a" + b"n" * 2_000)
        tags = [identity_tags(StreamId(tenant, "x")) | _cut("streamq:name", n) for n in names]
        tags += [{}, {"streamq:name:0": "="}, identity_tags(StreamId(tenant, "y")) | _HUGE]
        attributes = {"FifoQueue": "true"} if self._fifo else {}
        for number, each in enumerate(tags):
            name = f"{start}{number:032}{'.fifo' if self._fifo else ''}"
            client.create_queue(QueueName=name, Attributes=attributes, tags=each)

    def _client(self) -> Any:
        return botocore.session.get_session().create_client(
            "sqs",
            region_name=REGION,
            endpoint_url=f"http://{self.server.address}",
            aws_access_key_id="streamq",
            aws_secret_access_key="streamq",
        )

    async def restart(self) -> None:
        """Skip: nobody can restart SQS, and the emulator keeps its messages in memory."""
        pytest.skip("SQS cannot be restarted, and its emulator forgets: nothing here to prove")


def _cut(key: str, name: bytes) -> dict[str, str]:
    encoded = base64.urlsafe_b64encode(name).decode()
    return {f"{key}:{i // 256}": encoded[i : i + 256] for i in range(0, len(encoded) or 1, 256)}


class TestFifo(DriverSuite):
    """FIFO queues."""

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=True)


@pytest.mark.full
class TestStandard(DriverSuite):
    """Standard queues, which may deliver messages in another order, and twice."""

    # These checks take long, and do not depend on the kind of queue.
    test_listing_is_complete_beyond_one_page = None  # type: ignore[assignment]
    test_many_streams_are_read_at_once = None  # type: ignore[assignment]

    @pytest.fixture
    def harness(self, tmp_path: Path, aws: Ministack) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, aws, fifo=False)


_ATTEMPT_IDS = (
    "ElasticMQ answers a ReceiveRequestAttemptId that comes again with status 500 if a message of "
    "its batch was deleted, and with messages that another reader has if their time-out was "
    "changed; SQS answers InvalidParameterValue, and the driver then asks without the id"
)


@pytest.mark.full
class TestElasticMq(DriverSuite):
    """FIFO queues of another implementation."""

    test_listing_is_complete_beyond_one_page = None  # type: ignore[assignment]
    test_many_streams_are_read_at_once = None  # type: ignore[assignment]

    @pytest.fixture
    def taking(self) -> ChunkQueue:
        """Skip what two readers at one position see, of which this server answers otherwise."""
        pytest.skip(_ATTEMPT_IDS)

    async def test_another_process_reads_ours_and_we_read_its(  # type: ignore[override]
        self,
    ) -> None:
        """Skip it: two processes read at one position, and acknowledge."""
        pytest.skip(_ATTEMPT_IDS)

    @pytest.fixture
    def harness(self, tmp_path: Path, elasticmq: DevServer) -> SqsHarness:
        """Return the harness."""
        return SqsHarness(tmp_path, elasticmq, fifo=True)


class RealHarness(BackendHarness):
    """The AWS account that the environment names."""

    driver = SqsDriver
    patience_seconds = 30.0

    def __init__(self, directory: Path, *, fifo: bool) -> None:
        super().__init__(directory)
        self._fifo = fifo

    @property
    def label(self) -> str:
        """Name the kind of queues, and the account."""
        return f"sqs ({'FIFO' if self._fifo else 'standard'} queues, a real account)"

    def settings(self) -> SqsSettings:
        """Return settings with a prefix by which queues that are left can be found."""
        return SqsSettings(
            fifo=self._fifo, visibility_seconds=2, hold_seconds=4, queue_prefix="streamq-test-"
        )

    async def break_connections(self) -> None:
        """Skip: there is no proxy in front of AWS."""
        pytest.skip("no proxy in front of a real account")

    def hang(self) -> AbstractAsyncContextManager[None]:
        """Skip: AWS cannot be made to hang."""
        pytest.skip("a real account cannot be made to hang")

    async def restart(self) -> None:
        """Skip: AWS cannot be restarted."""
        pytest.skip("a real account cannot be restarted")

    def unreachable(self) -> SqsSettings:
        """Return settings for a port where nothing listens."""
        return SqsSettings(endpoint_url=f"http://127.0.0.1:{free_port()}", fifo=self._fifo)


if os.environ.get("STREAMQ_TEST_AWS") == "1":

    @pytest.mark.parametrize("fifo", [True, False], ids=["fifo", "standard"])
    class TestRealAccount(DriverSuite):
        """SQS itself; a later `streamq sweep` deletes the queues that are left."""

        @pytest.fixture
        def real_account(self) -> None:
            """Keep the environment as it is."""

        @pytest.fixture
        def harness(self, tmp_path: Path, real_account: None, fifo: bool) -> RealHarness:
            """Return the harness."""
            return RealHarness(tmp_path, fifo=fifo)

else:

    def test_real_account() -> None:
        """Emulators only imitate SQS; the real service has to prove that the driver works."""
        pytest.skip("STREAMQ_TEST_AWS is not 1: no real account may be used")
