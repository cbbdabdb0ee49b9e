"""The server that demos and tests start: there when needed, gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from streamq import BackendUnavailableError, ConfigurationError
from streamq_redis.embedded import EmbeddedRedis

ORPHAN = """
import sys, time
from streamq_redis.embedded import EmbeddedRedis
server = EmbeddedRedis(binary=sys.argv[1]).start()
print(server.pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_server_lives_as_long_as_the_block(binary: Path) -> None:
    """A demo leaves nothing behind: no process, no files."""
    with EmbeddedRedis(binary=binary) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("a", "b")
            directory = Path(client.config_get("dir")["dir"])
        pid = server.pid
    assert not is_running(pid)
    assert not directory.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_ends_with_its_process_however_that_ends(binary: Path, how: int) -> None:
    """Interrupted test runs must not leave servers on the machine."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(binary)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        os.kill(parent.pid, how)
        parent.wait(10)
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)


def test_data_directory_and_port_are_kept_for_a_restart(binary: Path, tmp_path: Path) -> None:
    """Tests of recovery need the same server again, with what it had on disk."""
    with EmbeddedRedis(binary=binary, data_dir=tmp_path, appendonly=True) as first:
        port = first.port
        with redis.Redis.from_url(first.url) as client:
            client.set("a", "b")
    with (
        EmbeddedRedis(binary=binary, data_dir=tmp_path, appendonly=True, port=port) as second,
        redis.Redis.from_url(second.url) as client,
    ):
        assert (port, b"b") == (second.port, client.get("a"))


def test_taken_port_is_told_with_the_servers_own_words(binary: Path) -> None:
    """Two demos at once: the second says what is wrong."""
    with EmbeddedRedis(binary=binary) as first, pytest.raises(BackendUnavailableError) as caught:
        EmbeddedRedis(binary=binary, port=first.port).start()
    assert str(first.port) in str(caught.value)


def test_missing_binary_is_a_configuration_error(tmp_path: Path) -> None:
    """The path was mistyped."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        EmbeddedRedis(binary=tmp_path / "nowhere").start()
