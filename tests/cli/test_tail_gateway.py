"""``streamq tail`` with the address of a stream, beside ``streamq tail`` on the backend."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote

import pytest
from tests.over_http.stories import open_writer_unsealed, write_everything

from streamq import load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.driver import ChunkQueue
from streamq.gateway import GatewayServer, create_app, serve
from streamq.testing import FaultProxy

from .command import Cli, one_error, read_until

NAME = "chat/a b\n\u202e%41"
KEY = new_secret()
SETTINGS = load_settings(backend="sqlite")
SETTINGS_WITH_KEY = load_settings(backend="sqlite", token_key=KEY)


@pytest.fixture
async def gateway(queue: ChunkQueue) -> AsyncIterator[GatewayServer]:
    async with serve(create_app(queue, SETTINGS)) as server:
        yield server


def outputs(cli: Cli, *commands: list[str]) -> list[tuple[int, bytes, bytes]]:
    """Run commands in parallel; return exit code, standard output and standard error."""
    processes = [cli.start(*command) for command in commands]
    found = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        found.append((process.returncode, out, err))
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["--json"],
        ["--raw"],
        [],
        ["--no-follow"],
        ["--json", "--no-follow"],
        ["--json", "--from", "last"],
        ["--json", "--from", "tail"],
        ["--json", "--attempts", "last"],
    ],
    ids=" ".join,
)
async def test_output_is_that_of_the_backend_byte_by_byte(
    options: list[str], cli: Cli, queue: ChunkQueue, gateway: GatewayServer
) -> None:
    """Whoever has no credentials of the backend must not get another story."""
    await write_everything(queue, NAME)
    address = f"{gateway.url}/events/{quote(NAME, safe='')}"
    here, there = await asyncio.to_thread(
        outputs,
        cli,
        ["tail", "--encoded", quote(NAME, safe=""), *options],
        ["tail", address, *options],
    )
    assert there == here
    assert here[0] == 0
    assert here[1]


@pytest.mark.parametrize("ending", ["open", "error", "cancelled"])
async def test_endings_are_those_of_the_backend(
    ending: str, cli: Cli, queue: ChunkQueue, gateway: GatewayServer
) -> None:
    """A script goes by the exit code and the notice."""
    async with open_writer_unsealed("s", queue) as writer:
        await writer.send_chunk("begun")
        if ending == "error":
            await writer.fail(ValueError("no more \x1b[2J"))
        elif ending == "cancelled":
            await writer.cancel("enough")
    options = ["--no-follow"] if ending == "open" else []
    here, there = await asyncio.to_thread(
        outputs, cli, ["tail", "s", *options], ["tail", f"{gateway.url}/events/s", *options]
    )
    assert there == here
    assert here[0] == (0 if ending == "open" else 1)


async def test_cursor_of_one_side_is_one_of_the_other(
    cli: Cli, queue: ChunkQueue, gateway: GatewayServer
) -> None:
    """A reader may move from the backend to the gateway and back, at any event."""
    await write_everything(queue, "s")
    address = f"{gateway.url}/streams/s"
    ((_, out, _),) = await asyncio.to_thread(outputs, cli, ["tail", "s", "--json"])
    lines = out.splitlines()
    for at in (0, 90, len(lines) // 2, len(lines) - 3):  # within a packed record, too
        cursor = json.loads(lines[at])["cursor"]
        here, there = await asyncio.to_thread(
            outputs,
            cli,
            ["tail", "s", "--json", "--from", cursor],
            ["tail", address, "--json", "--from", cursor],
        )
        assert there == here
        assert there[1].splitlines() == lines[at + 1 :]


async def test_output_is_the_same_through_a_proxy_that_cuts_every_two_seconds(
    cli: Cli, queue: ChunkQueue, gateway: GatewayServer
) -> None:
    """Load balancers and mobile networks do that, and nothing may be lost or repeated."""
    host, port = gateway.url.removeprefix("http://").split(":")
    async with FaultProxy(host, int(port)) as proxy:
        commands = [
            ["tail", "s", "--wait", "30", "--json"],
            ["tail", f"http://{proxy.address}/events/s", "--wait", "30", "--json"],
            ["tail", "s", "--wait", "30"],
            ["tail", f"http://{proxy.address}/events/s", "--wait", "30"],
        ]
        running = asyncio.create_task(asyncio.to_thread(outputs, cli, *commands))
        cuts = 0

        async def cut() -> None:
            nonlocal cuts
            while True:
                await asyncio.sleep(2)
                cuts += proxy.cut() > 0

        async def write() -> None:
            async with open_writer_unsealed("s", queue) as writer:
                while cuts < 2:
                    await writer.send_chunk(f"first, after {cuts} cuts\n")
                    await asyncio.sleep(0.1)
            async with open_writer("s", queue=queue) as last:
                while cuts < 4:
                    await last.send_chunk(f"then, after {cuts} cuts\n")
                    await asyncio.sleep(0.1)

        cutting = asyncio.create_task(cut())
        await write()
        finished = await running
        cutting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cutting
    assert [code for code, _, _ in finished] == [0, 0, 0, 0]
    assert finished[1][1] == finished[0][1]
    assert finished[3][1] == finished[2][1]
    assert b"after 3 cuts" in finished[1][1]


async def test_a_token_is_read_again_from_its_file_when_it_ends(
    cli: Cli, queue: ChunkQueue
) -> None:
    """A command that runs for hours outlives its token; something renews the file."""
    file = cli.directory / "token"
    seconds = timedelta(seconds=8)
    file.write_text(mint_token(every=True, settings=SETTINGS_WITH_KEY, lifetime=seconds))
    async with serve(create_app(queue, SETTINGS_WITH_KEY)) as server:
        writer = await open_writer("s", queue=queue)
        await writer.send_chunk("one\n")
        await writer.flush()
        process = cli.start("tail", f"{server.url}/events/s", "--token-file", str(file))
        await asyncio.to_thread(read_until, process, "one")
        file.write_text(mint_token(every=True, settings=SETTINGS_WITH_KEY))
        await asyncio.sleep(seconds.total_seconds())  # until the first token has ended
        await writer.send_chunk("two\n")
        await writer.finish()
        finished = await asyncio.to_thread(cli.finish, process)
    assert (finished.code, finished.out) == (0, "two\n")


async def test_what_cannot_be_read_is_one_line(cli: Cli, queue: ChunkQueue) -> None:
    """Nobody should see a traceback because of a wrong address or a missing token."""
    async with serve(create_app(queue, SETTINGS_WITH_KEY)) as server:
        token = mint_token(every=True, settings=SETTINGS_WITH_KEY)
        environment = {"STREAMQ_GATEWAY_TOKEN": token}
        cases = [
            ([f"{server.url}/events/s"], {}, "this needs a token"),
            (
                [f"{server.url}/events/s"],
                {"STREAMQ_GATEWAY_TOKEN": "hunter2"},
                "no signed JSON Web Token",
            ),
            ([f"{server.url}/events/s"], environment, "there is no stream default/s"),
            ([server.url], environment, "names no stream"),
            ([f"{server.url}/nothing/?stream=s"], environment, "no such route"),
            (["http://127.0.0.1:9/events/s"], environment, "cannot be reached"),
            (["http://streams.example.org/events/s"], environment, "has no TLS"),
            (["https://a:hunter2@example.org/events/s"], {}, "a user or a password"),
            ([f"{server.url}/events/s?ticket=hunter2"], {}, "a ticket or a token"),
            ([f"{server.url}/events/s?from=tail"], {}, "leave it out"),
            ([f"{server.url}/events/s", "--token-file", "absent"], {}, "cannot be read"),
            (["s", "--token-file", "absent"], {}, "--token-file is for the address"),
        ]
        for arguments, variables, expected in cases:
            finished = await asyncio.to_thread(cli.run, "tail", *arguments, env=variables)
            error = one_error(finished)
            assert expected in error, (arguments, error)
            assert "hunter2" not in error
            assert token not in error
