"""The embedded broker of demos: it starts, it ends with its parent, and its errors are clear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kafka_brokers import Broker
from streamq import BackendUnavailableError, ConfigurationError
from streamq_kafka.embedded import EmbeddedKafka, TopicSpec

_ORPHAN = """
import time
from streamq_kafka.embedded import EmbeddedKafka
server = EmbeddedKafka().start()
print(server.pid, flush=True)
time.sleep(60)
"""


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_embedded_broker_has_its_topics_at_every_start() -> None:
    """The broker forgets everything when it ends, and a demo needs its topics at every start."""
    with EmbeddedKafka(topics=(TopicSpec("a", 3), TopicSpec("b", 1, compacted=True))) as server:
        broker = Broker("tansu", "", server, server.port, server.port)
        assert sorted(await broker.operator.topics()) == ["a", "b"]
        server.kill()
        server.start()
        assert sorted(await broker.operator.topics()) == ["a", "b"]
        pid = server.pid
    assert not _is_running(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_embedded_broker_ends_with_its_parent_however_that_ends(how: int) -> None:
    """Interrupted test runs must not leave servers on the machine."""
    with subprocess.Popen(
        [sys.executable, "-c", _ORPHAN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _is_running(pid)
        os.kill(parent.pid, how)
        parent.wait(10)
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(pid)


def test_taken_port_is_reported_with_the_message_of_the_server() -> None:
    """Of two demos at once, the second has to say what is wrong."""
    with EmbeddedKafka() as first:
        port = first.port
        with pytest.raises(BackendUnavailableError, match=f"port {port}: .*in use"):
            EmbeddedKafka(port=port).start()


def test_missing_binary_is_a_configuration_error(tmp_path: Path) -> None:
    """The path was mistyped."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        EmbeddedKafka(binary=tmp_path / "nowhere").start()
