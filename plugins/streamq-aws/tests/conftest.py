"""Fixtures: an emulator that these tests start and stop, and an environment without an account."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aws_fixtures import authority_fixture, emulator_fixture, environment_fixture
from aws_refusing_proxy import RefusingProxy
from streamq.driver import StreamId
from streamq.testing import new_stream
from streamq_aws.embedded import Ministack

BUCKET = "drivers"

aws = emulator_fixture()
authority = authority_fixture()
environment = environment_fixture()


@pytest.fixture(params=["sqs", "s3sns"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, aws: Ministack) -> str:
    """Select a driver by variables; the usual AWS variables lead to the emulator."""
    name = str(request.param)
    pytest.importorskip(f"streamq_{name}")
    with aws.client("s3") as s3:
        s3.create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("STREAMQ_BACKEND", name)
    monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", BUCKET)
    monkeypatch.setenv("STREAMQ_SQS_MAX_MESSAGE_BYTES", "262144")
    return name


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch, aws: Ministack) -> AsyncIterator[RefusingProxy]:
    """Return a proxy in front of the emulator that can refuse requests."""
    async with RefusingProxy(aws.address) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def stream() -> StreamId:
    """Return a stream that no other test uses."""
    return new_stream()
