"""``streamq serve``."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from streamq import open_writer
from streamq.driver import ChunkQueue

from .command import Cli, get, one_error, read_until


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_streams_are_served_until_a_signal(
    cli: Cli, queue: ChunkQueue, sent: signal.Signals, code: int
) -> None:
    """A stop by a service manager is a success, and open connections do not delay it."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("hello")
        await stream.flush()
        process = cli.start("serve", "--port", "0")
        url = read_until(process, "Ctrl-C stops it").split()[0]
        with get(f"{url}/streams/s") as answer:
            assert json.load(answer)["state"] == "OPEN"
        with get(f"{url}/streams/s/events") as events:
            while b"hello" not in events.readline():
                pass
            process.send_signal(sent)
            finished = cli.finish(process)
    assert finished.code == code
    assert finished.err == ""


def test_a_port_that_is_taken_is_one_line(cli: Cli) -> None:
    """The most common failure of a server needs a clear message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = one_error(cli.run("serve", env={"STREAMQ_GATEWAY_PORT": str(port)}))
    assert str(port) in message


def test_a_backend_that_is_down_is_one_line(cli: Cli) -> None:
    """A gateway without a backend must not start."""
    env = {"STREAMQ_BACKEND": "redis", "STREAMQ_REDIS_URL": "redis://me:hunter2@127.0.0.1:1/0"}
    assert "127.0.0.1:1" in one_error(cli.run("serve", "--port", "0", env=env))


def test_a_backend_of_one_process_is_warned_of(cli: Cli) -> None:
    """The page would stay empty for ever, whatever producers do."""
    process = cli.start("serve", "--port", "0", env={"STREAMQ_BACKEND": "memory"})
    read_until(process, "Ctrl-C stops it")
    read_until(process, "one process only", from_stderr=True)
    process.send_signal(signal.SIGTERM)
    assert cli.finish(process).code == 0
