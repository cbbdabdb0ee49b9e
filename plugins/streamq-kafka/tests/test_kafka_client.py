"""The behaviour of aiokafka's client that streamq replaces, without a broker."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as ke
import pytest
from aiokafka import conn
from aiokafka.protocol.admin import SaslAuthenticateRequest_v1, SaslAuthenticateResponse_v0
from aiokafka.structs import TopicPartition

from streamq_kafka import KafkaSettings
from streamq_kafka.requests._client import REQUEST_LANE
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._connections import Connections


async def test_partition_missing_in_an_answer_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While leaders change, an answer may have only some of the partitions."""
    cluster = Cluster(KafkaSettings())
    answered, missing = TopicPartition("t", 0), TopicPartition("t", 1)

    async def send(*_: Any, group: int) -> Any:
        assert group == REQUEST_LANE
        return SimpleNamespace(topics=[("t", [(0, 0, -1, 7)])])

    monkeypatch.setattr(cluster.metadata, "known_leader", lambda partition: 1)
    monkeypatch.setattr(cluster.connections.client, "send", send)
    found = await cluster.end_offsets([answered, missing])
    assert found[answered] == 7
    assert isinstance(found[missing], ke.LeaderNotAvailableError)
    await cluster.close()


async def test_credentials_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Logs at level DEBUG in production are read by many people."""
    Connections(KafkaSettings())
    Connections(KafkaSettings())
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
from streamq_kafka import KafkaSettings
from streamq_kafka.requests._connections import Connections

async def main():
    Connections(KafkaSettings())
    logging.getLogger("aiokafka.client").error("not for the terminal")
    logging.getLogger("streamq").warning("trying again")
    logging.basicConfig()
    logging.getLogger("aiokafka.client").error("logging is configured")

asyncio.run(main())
"""


def test_aiokafka_logs_to_the_terminal_only_if_logging_is_configured() -> None:
    """A broker that is down for ten seconds must not print 200 lines into a reader's output."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM_WITHOUT_LOGGING],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert run.stderr.splitlines() == [
        "trying again",
        "ERROR:aiokafka.client:logging is configured",
    ]
