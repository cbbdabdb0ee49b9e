"""Text of others on every way to the terminal: nothing executes, and nothing secret is shown."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from tests.hostile_values import HOSTILE, SECRETS, executes

from streamq import open_writer
from streamq.cli._failures import readable_logs, reported
from streamq.driver import ChunkQueue

from .command import Cli, Inside, on_terminal

IN_ENVIRONMENT = [text for text in HOSTILE.values() if "\x00" not in text and "\ud83d" not in text]


def is_harmless(shown: str) -> bool:
    return not executes(shown) and "hunter2" not in shown.lower()


async def test_chunks_and_endings_do_nothing(cli: Cli, queue: ChunkQueue) -> None:
    """A model, or whoever writes to it, decides what a chunk is."""
    async with open_writer("chunks", queue=queue) as stream:
        for text in HOSTILE.values():
            await stream.send_chunk(text.encode("utf-8", "replace").decode())
            await stream.send_chunk({"a": text.encode("utf-8", "replace").decode()})
        await stream.send_chunk("\x1b[31mred")
    for number, text in enumerate((*HOSTILE.values(), *SECRETS.values())):
        async with open_writer(f"failed-{number}", queue=queue) as stream:
            await stream.fail(ValueError(text))
    commands = [["tail", "chunks"], ["tail", "chunks", "--json"], ["ls", "-l"], ["ls", "--json"]]
    tail, as_json, listed, listed_json = await asyncio.to_thread(cli.run_each, commands)
    assert [each.code for each in (tail, as_json, listed, listed_json)] == [0, 0, 0, 0]
    assert tail.out.endswith("\x1b[31mred\x1b[0m")
    assert not executes(tail.out.replace("\x1b[31mred\x1b[0m", ""))
    for shown in (as_json.out, listed.out, listed_json.out, tail.err):
        assert is_harmless(shown)
    assert len(listed.out.splitlines()) == 2 + len(HOSTILE) + len(SECRETS)
    values = [json.loads(line).get("value") for line in as_json.out.splitlines()]
    assert HOSTILE["clipboard"] in values
    raw, failed = await asyncio.to_thread(
        cli.run_each, [["tail", "chunks", "--raw"], ["tail", "failed-0"]]
    )
    assert HOSTILE["clipboard"] in raw.out
    assert "\\x1b]52" in failed.err


async def test_bytes_are_escaped_on_a_terminal_only(cli: Cli, queue: ChunkQueue) -> None:
    """A file gets the bytes that were sent; a terminal could execute them."""
    async with open_writer("b", queue=queue) as stream:
        await stream.send_chunk(b"\xff\x9b2J\x1b[2J\n")
    process = cli.start("tail", "b")
    out, _ = process.communicate(timeout=30)
    assert out == b"\xff\x9b2J\x1b[2J\n"
    shown = await asyncio.to_thread(on_terminal, cli, "tail", "b", env={})
    assert "\\xff\\x9b2J\\x1b[2J" in shown


def test_settings_do_nothing_and_show_no_secret(inside: Inside) -> None:
    """Errors and tables quote what was given, which is often the key in the place of its path."""
    for number, text in enumerate((*SECRETS.values(), *IN_ENVIRONMENT)):
        given = [{"STREAMQ_TTL_SECONDS": text}]
        if number % 8 == 0:
            given.append({"STREAMQ_TENANT": text})
            given.append({"STREAMQ_SQLITE_PATH": f"/proc/none/{text}"})
        if number < len(SECRETS) and number % 3 == 0:
            names = ("STREAMQ_TEMPORAL_TLS_SERVER_CA", "STREAMQ_TEMPORAL_TLS_SERVER_NAME")
            given.append(dict.fromkeys(names, text))
        for env in given:
            command = "doctor" if "STREAMQ_SQLITE_PATH" in env else "config"
            done = inside.run(command, env=env)
            assert is_harmless(done.out + done.err), (text, done)


@pytest.mark.parametrize("debug", ["", "1"])
def test_logs_and_errors_do_nothing_and_show_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    """Libraries log what a server has sent, and every traceback ends with the text of an error."""
    monkeypatch.setenv("STREAMQ_DEBUG", debug)
    logger = logging.getLogger("some.library")
    monkeypatch.setattr(logger, "propagate", False)
    with readable_logs():
        for text in (*HOSTILE.values(), *SECRETS.values()):
            with pytest.raises(RuntimeError) as raised:
                raise RuntimeError(text)
            logger.warning("failed with %s", text, exc_info=raised.value)
            assert reported(raised.value) == 2
    shown = capsys.readouterr().err
    assert [line for line in shown.splitlines() if not is_harmless(line)] == []
    assert ("Traceback" in shown) is bool(debug)
    if not debug:
        assert len(shown.splitlines()) == 2 * (len(HOSTILE) + len(SECRETS))


def test_commands_print_through_one_place() -> None:
    """A console of another class, or a bare print, would let everything pass."""
    folder = Path(__file__).parents[2] / "src" / "streamq" / "cli"
    for path in folder.rglob("*.py"):
        text = path.read_text()
        if path.name != "_terminal.py":
            assert "rich.table" not in text, path
            assert "Console(" not in text, path
        assert "print(f" not in text.replace("console.print(f", "?"), path
