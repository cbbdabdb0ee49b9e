"""Fixtures: servers that these tests start and stop, and an environment without an account.

With ``STREAMQ_TEST_AWS=1`` some tests also use the account that the environment names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aws_fixtures import authority_fixture, emulator_fixture, environment_fixture
from sqs_elasticmq import ElasticMq, find_classpath
from streamq.testing import open_queue_fixture, stream_fixture
from streamq_aws.embedded import Ministack
from streamq_sqs import SqsDriver, SqsSettings

aws = emulator_fixture()
authority = authority_fixture()
environment = environment_fixture()
stream = stream_fixture()
open_queue = open_queue_fixture(SqsDriver)


@pytest.fixture(scope="session")
def elasticmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElasticMq]:
    """Return another emulator, which supports ReceiveRequestAttemptId."""
    with ElasticMq(find_classpath(tmp_path_factory.mktemp("elasticmq"))) as running:
        yield running


@pytest.fixture
def settings() -> SqsSettings:
    """Return settings that lead to the emulator."""
    return SqsSettings(max_message_bytes=262_144)


@pytest.fixture(scope="session")
def plain(aws: Ministack) -> Iterator[Any]:
    """Return a plain client, to look past the driver."""
    with aws.client("sqs") as client:
        yield client
