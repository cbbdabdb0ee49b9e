"""Fixtures: an emulator that these tests start and stop, and an environment without an account."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aws_fixtures import authority_fixture, emulator_fixture, environment_fixture
from s3sns_bucket import BUCKET
from streamq import load_settings
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing import OpenQueue, open_queue_fixture, stream_fixture
from streamq_aws.embedded import Ministack
from streamq_s3sns import HandOver, S3SnsDriver, S3SnsSettings, open_hand_over

aws = emulator_fixture()
authority = authority_fixture()
environment = environment_fixture()
stream = stream_fixture()
open_queue = open_queue_fixture(S3SnsDriver)


@pytest.fixture(scope="session", autouse=True)
def bucket(aws: Ministack) -> str:
    """Create the bucket that all tests share, and return its name."""
    with aws.client("s3") as client:
        client.create_bucket(Bucket=BUCKET)
    return BUCKET


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


@pytest.fixture
def settings(bucket: str, topic: str) -> S3SnsSettings:
    """Return settings that lead to the shared bucket, below a prefix of the test's own."""
    return S3SnsSettings(bucket=bucket, prefix=f"t-{uuid.uuid4().hex}", topic_arn=topic)


@pytest.fixture
async def queue(open_queue: OpenQueue, stream: StreamId) -> ChunkQueue:
    """Return a queue on which the stream exists."""
    opened = await open_queue()
    await opened.append(stream, [Entry(1, 0, b"a")])
    return opened


@pytest.fixture
async def hand_over(queue: ChunkQueue) -> AsyncIterator[HandOver]:
    """Return a hand-over on that queue."""
    async with open_hand_over(queue=queue, settings=load_settings(retry_seconds=5)) as opened:
        yield opened
