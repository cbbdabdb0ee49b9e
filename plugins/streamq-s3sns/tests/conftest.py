"""The emulator for the tests, started here and stopped here, and nobody's real credentials."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from s3sns_bucket import BUCKET
from streamq import load_settings
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing import OpenQueue, new_stream, queue_factory
from streamq_aws import AwsClients
from streamq_aws.embedded import Ministack
from streamq_s3sns import HandOver, S3SnsDriver, S3SnsSettings, open_hand_over


@pytest.fixture(scope="session")
def aws() -> Iterator[Ministack]:
    """Return an emulator that all tests share, with a bucket."""
    with Ministack() as running:
        with running.client("s3") as s3:
            s3.create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="session")
def topic(aws: Ministack) -> str:
    """Return the ARN of a topic."""
    with aws.client("sns") as sns:
        return str(sns.create_topic(Name="streams")["TopicArn"])


@pytest.fixture(scope="session")
def s3(aws: Ministack) -> Iterator[Any]:
    """Return a plain client of S3."""
    with aws.client("s3") as client:
        yield client


@pytest.fixture(scope="session")
def sqs(aws: Ministack) -> Iterator[Any]:
    """Return a plain client of SQS."""
    with aws.client("sqs") as client:
        yield client


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one certificate to trust, so that no client reads a hundred: nothing here uses TLS."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def _environment(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    aws: Ministack,
    authority: Path,
) -> None:
    if "real_account" in request.fixturenames:
        return
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def settings(aws: Ministack, topic: str) -> S3SnsSettings:
    """Return settings that lead to the shared bucket, below a prefix of the test's own."""
    return S3SnsSettings(bucket=BUCKET, prefix=f"t-{uuid.uuid4().hex}", topic_arn=topic)


@pytest.fixture
async def open_queue(settings: S3SnsSettings) -> AsyncIterator[OpenQueue]:
    """Return a function that opens a queue on the shared bucket."""
    async with queue_factory(S3SnsDriver, settings) as factory:
        yield factory


@pytest.fixture
async def clients(settings: S3SnsSettings) -> AsyncIterator[AwsClients]:
    """Return clients of our own, as the driver has them."""
    opened = AwsClients(settings, backend="s3sns")
    yield opened
    await opened.aclose()


@pytest.fixture
def stream() -> StreamId:
    """Return a stream that no other test uses."""
    return new_stream()


@pytest.fixture
async def queue(open_queue: OpenQueue, stream: StreamId) -> ChunkQueue:
    """Return a queue on which the stream exists."""
    opened = await open_queue()
    await opened.append(stream, [Entry(1, 0, b"a")])
    return opened


@pytest.fixture
async def hand_over(queue: ChunkQueue) -> AsyncIterator[HandOver]:
    """Return what hands over on that queue."""
    async with open_hand_over(queue=queue, settings=load_settings(retry_seconds=5)) as opened:
        yield opened
