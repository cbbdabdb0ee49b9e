"""What is changed about aiokafka's client, without a broker."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as ke
import pytest
from aiokafka import conn
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import SaslAuthenticateRequest_v1, SaslAuthenticateResponse_v0
from aiokafka.structs import TopicPartition

from streamq_kafka import KafkaSettings
from streamq_kafka.requests._client import REQUEST_LANE, adapt
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._connection_options import connection_options


async def _client() -> AIOKafkaClient:
    options = connection_options(KafkaSettings())
    client = AIOKafkaClient(**options)
    adapt(client, options)
    return client


async def test_partition_that_a_broker_leaves_out_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While leaders change, an answer may be for some of what was asked."""
    cluster = Cluster(KafkaSettings())
    told, left_out = TopicPartition("t", 0), TopicPartition("t", 1)

    async def send(*_: Any, group: int) -> Any:
        assert group == REQUEST_LANE
        return SimpleNamespace(topics=[("t", [(0, 0, -1, 7)])])

    monkeypatch.setattr(cluster.metadata, "known_leader", lambda partition: 1)
    monkeypatch.setattr(cluster.connections.client, "send", send)
    found = await cluster.end_offsets([told, left_out])
    assert found[told] == 7
    assert isinstance(found[left_out], ke.LeaderNotAvailableError)
    await cluster.close()


async def test_credentials_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody switches DEBUG on in production, and the log goes to many people."""
    await _client()
    await _client()
    log = logging.getLogger("aiokafka.conn")
    assert log is conn.log
    assert len(log.filters) == 1
    with caplog.at_level(logging.DEBUG, log.name):
        request = SaslAuthenticateRequest_v1(b"\0me\0s3cr3t")
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 1, request)
        log.debug("Response %d: %s", 1, SaslAuthenticateResponse_v0(0, None, b"s3cr3t"))
        log.debug("nothing to replace")
    assert "s3cr3t" in repr(request)
    assert "s3cr3t" not in caplog.text
    assert "Request to kafka:9092 1: SaslAuthenticateRequest_v1(...)" in caplog.text


_PROGRAM_WITHOUT_LOGGING = """
import asyncio, logging
from aiokafka.client import AIOKafkaClient
from streamq_kafka import KafkaSettings
from streamq_kafka.requests._client import adapt
from streamq_kafka.requests._connection_options import connection_options

async def main():
    options = connection_options(KafkaSettings())
    adapt(AIOKafkaClient(**options), options)
    logging.getLogger("aiokafka.client").error("not for the terminal")
    logging.getLogger("streamq").warning("trying again")
    logging.basicConfig()
    logging.getLogger("aiokafka.client").error("for those who want it")

asyncio.run(main())
"""


def test_terminal_shows_what_aiokafka_logs_only_to_those_who_want_it() -> None:
    """A broker that is away for ten seconds must not print two hundred lines into a reader."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM_WITHOUT_LOGGING],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert run.stderr.splitlines() == [
        "trying again",
        "ERROR:aiokafka.client:for those who want it",
    ]
