"""The brokers that demos and tests start: there when needed, gone afterwards, clear when not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.apache_kafka import ApacheKafka, _jars

from kafka_brokers import Broker, need_apache
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
    """It forgets everything when it ends; a demo must find its topics all the same."""
    with EmbeddedKafka(topics=(TopicSpec("a", 3), TopicSpec("b", 1, compacted=True))) as server:
        broker = Broker("tansu", "", server, server.port, server.port)
        assert sorted(await broker.operator.topics()) == ["a", "b"]
        server.kill()
        server.start()
        assert sorted(await broker.operator.topics()) == ["a", "b"]
        pid = server.pid
    assert not _is_running(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_embedded_broker_ends_with_its_process_however_that_ends(how: int) -> None:
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


def test_taken_port_is_told_with_the_servers_own_words() -> None:
    """Two demos at once: the second says what is wrong."""
    with EmbeddedKafka() as first:
        port = first.port
        with pytest.raises(BackendUnavailableError, match=f"port {port}: .*in use"):
            EmbeddedKafka(port=port).start()


def test_missing_binary_is_a_configuration_error(tmp_path: Path) -> None:
    """The path was mistyped."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        EmbeddedKafka(binary=tmp_path / "nowhere").start()


def test_apache_kafka_that_does_not_start_shows_its_log() -> None:
    """A JVM that ends without a word costs an afternoon."""
    need_apache()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BackendUnavailableError, match="Address already in use"),
    ):
        ApacheKafka(port=taken.getsockname()[1]).start()


def test_storage_that_cannot_be_formatted_is_told_in_kafkas_words() -> None:
    """A mistyped property is refused before the server starts."""
    need_apache()
    with pytest.raises(ConfigurationError, match=r"process\.roles"):
        ApacheKafka(properties={"process.roles": "nonsense"}).start()


def test_machine_without_java_or_maven_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tests are skipped with this text; a benchmark ends with it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigurationError, match="install openjdk"):
        _jars.find_java()
    _jars.class_path.cache_clear()
    with pytest.raises(ConfigurationError, match="install maven"):
        _jars.class_path()
