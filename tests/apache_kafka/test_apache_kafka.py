"""Apache Kafka as the tests start it: errors at the start are clear, and say what to install."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.apache_kafka import ApacheKafka, _jars

from kafka_brokers import need_apache
from streamq import BackendUnavailableError, ConfigurationError


def test_apache_kafka_that_does_not_start_shows_its_log() -> None:
    """A JVM that ends without a message costs an afternoon."""
    need_apache()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BackendUnavailableError, match="Address already in use"),
    ):
        ApacheKafka(port=taken.getsockname()[1]).start()


def test_storage_that_cannot_be_formatted_is_reported_in_the_words_of_kafka() -> None:
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
