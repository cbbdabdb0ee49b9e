"""``streamq tail``."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from streamq import open_writer
from streamq.driver import ChunkQueue

from .command import DATABASE, Cli, one_error, read_until


async def test_text_is_printed_as_it_was_sent(cli: Cli, queue: ChunkQueue) -> None:
    """The output can be piped like that of any program."""
    async with open_writer("s", queue=queue) as stream:
        for chunk in ("one ", "two\n", "", {"a": [1, "ü"]}, b"\xff\n", "end"):
            await stream.send_chunk(chunk)
    process = cli.start("tail", "s")
    out, err = process.communicate(timeout=30)
    assert out == b'one two\n{"a":[1,"\xc3\xbc"]}\n\xff\nend'
    assert process.returncode == 0
    assert err.decode().startswith("-- END: 6 chunks")


async def test_the_notice_at_the_end_has_a_line_of_its_own(cli: Cli, queue: ChunkQueue) -> None:
    """With 2>&1 both go to one file, where the notice must not look like a part of the text."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("no newline here")
    process = cli.start("tail", "s", stderr=subprocess.STDOUT)
    assert cli.finish(process).out.startswith("no newline here\n-- END: 1 chunks")


async def test_json_has_every_event_and_its_cursor(cli: Cli, queue: ChunkQueue) -> None:
    """A program can stop at any event and continue later."""
    async with open_writer("s", queue=queue) as stream:
        for chunk in ("one", 2, "three"):
            await stream.send_chunk(chunk)
    lines = [json.loads(line) for line in cli.run("tail", "s", "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["chunk", "chunk", "chunk", "end"]
    assert [line.get("value") for line in lines] == ["one", 2, "three", None]
    rest = cli.run("tail", "s", "--json", "--from", lines[0]["cursor"]).out
    assert [json.loads(line) for line in rest.splitlines()] == lines[1:]


async def test_a_stream_is_followed_while_another_process_writes_it(
    cli: Cli, queue: ChunkQueue
) -> None:
    """Following a live stream is the purpose of the command."""
    process = cli.start("tail", "-f", "s", "--wait", "20")
    async with open_writer("s", queue=queue) as stream:
        for word in ("one\n", "two\n", "three\n"):
            await stream.send_chunk(word)
            await stream.flush()
            assert read_until(process, word) == word
        assert process.poll() is None
    assert cli.finish(process).code == 0


async def test_from_tail_prints_all_of_a_stream_that_was_waited_for(
    cli: Cli, queue: ChunkQueue
) -> None:
    """A user who waits for a stream must not miss its beginning."""
    process = cli.start("tail", "s", "--from", "tail", "--wait", "20", "--json")
    read_until(process, "waiting", from_stderr=True)
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("one")
    assert '"one"' in cli.finish(process).out


async def test_from_tail_prints_only_new_events(cli: Cli, queue: ChunkQueue) -> None:
    """Of a long stream, users may want only the rest."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("old")
        await stream.flush()
        shown = cli.run("tail", "s", "--from", "tail", "--no-follow")
    assert shown.code == 0
    assert shown.out == ""


async def test_from_last_prints_the_current_value(cli: Cli, queue: ChunkQueue) -> None:
    """A script asks how far a job is, and needs neither the history nor the next value."""
    async with open_writer("s", queue=queue) as stream:
        for value in ("10 %", "20 %"):
            await stream.send_chunk(value)
        await stream.flush()
        shown = cli.run("tail", "s", "--from", "last", "--no-follow")
    assert (shown.code, shown.out) == (0, "20 %")


async def test_without_following_only_the_stored_events_are_printed(
    cli: Cli, queue: ChunkQueue
) -> None:
    """A script can read a stream without waiting."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("so far")
        await stream.flush()
        shown = cli.run("tail", "s", "--no-follow")
    assert (shown.code, shown.out) == (0, "so far")
    assert "-- open so far: 1 chunks" in shown.err


async def test_a_reset_is_announced(cli: Cli, queue: ChunkQueue) -> None:
    """Text that is no longer valid must not look like valid text."""
    first = await open_writer("s", queue=queue, epoch=1)
    await first.send_chunk("draft")
    await first.aclose()
    async with open_writer("s", queue=queue, epoch=2) as second:
        await second.send_chunk("final")
    shown = cli.run("tail", "s")
    assert shown.out == "draftfinal"
    assert "-- attempt 2 starts over" in shown.err
    assert "-- END: 1 chunks, 5 bytes, attempt 2" in shown.err


@pytest.mark.parametrize("ending", ["fail", "cancel"])
async def test_an_error_or_a_cancellation_is_exit_code_1(
    cli: Cli, queue: ChunkQueue, ending: str
) -> None:
    """A script can distinguish a complete text from an incomplete one."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("part")
        if ending == "fail":
            await stream.fail(ValueError("the model caught fire"))
        else:
            await stream.cancel()
    shown = cli.run("tail", "s")
    assert (shown.code, shown.out) == (1, "part")
    wanted = "ERROR: ValueError: the model caught fire" if ending == "fail" else "CANCELLED"
    assert shown.err.startswith(f"-- {wanted}")


def test_a_missing_stream_is_one_line_with_the_next_step(cli: Cli) -> None:
    """The command must not wait for ever for a mistyped name."""
    ways = [[], ["--from", "tail"], ["--no-follow"]]
    for finished in cli.run_each([["tail", "nothing-there", *options] for options in ways]):
        message = one_error(finished)
        assert "default/nothing-there" in message
        assert "--wait" in message


def test_waiting_has_an_end(cli: Cli) -> None:
    """The name may be mistyped, so the wait is bounded."""
    shown = cli.run("tail", "nothing-there", "--wait", "0.1")
    assert shown.code == 2
    notice, error = shown.err.splitlines()
    assert notice == "-- waiting up to 0.1 s for stream default/nothing-there"
    assert error.startswith("error: ")


async def test_a_cursor_of_another_stream_is_refused(cli: Cli, queue: ChunkQueue) -> None:
    """Continuing at the wrong place would lose data silently."""
    for name in ("a", "b"):
        async with open_writer(name, queue=queue) as stream:
            await stream.send_chunk(name)
    cursor = json.loads(cli.run("tail", "a", "--json").out.splitlines()[0])["cursor"]
    assert "another stream" in one_error(cli.run("tail", "b", "--from", cursor))
    message = one_error(cli.run("tail", "b", "--from", "yesterday"))
    assert message == (
        "error: 'yesterday' is not a cursor, or not all of one; give 'beginning', 'last', 'tail' "
        "or a cursor that a reader returned, unchanged"
    )


async def test_damaged_records_are_one_line(cli: Cli, queue: ChunkQueue) -> None:
    """A damaged disk has to be reported; a traceback would hide the message."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("fine")
        await stream.flush()
        await stream.send_chunk("to be damaged")
    with closing(sqlite3.connect(cli.directory / DATABASE)) as database, database:
        database.execute(
            "UPDATE records SET data = ? WHERE id = (SELECT max(id) FROM records)",
            (b"\x00garbage" * 5,),
        )
    shown = cli.run("tail", "s")
    assert shown.out == "fine"
    one_error(shown)


def test_a_file_that_is_not_a_database_is_one_line(cli: Cli) -> None:
    """The configured path may name another kind of file."""
    path = cli.directory / "notes.txt"
    path.write_text("not a database, but long enough to be looked at " * 50)
    message = one_error(cli.run("tail", "s", env={"STREAMQ_SQLITE_PATH": str(path)}))
    assert "notes.txt" in message


def test_an_unusable_name_is_one_line(cli: Cli) -> None:
    """Names have limits that other languages have to keep, too."""
    assert "name" in one_error(cli.run("tail", ""))


async def test_an_idle_stream_is_given_up(cli: Cli, queue: ChunkQueue) -> None:
    """Every wait has a deadline."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("x")
        await stream.flush()
        shown = cli.run("tail", "s", env={"STREAMQ_IDLE_SECONDS": "0.2"})
    assert "STREAMQ_IDLE_SECONDS" in one_error(shown)


async def test_after_an_interruption_the_terminal_shows_how_to_continue(
    cli: Cli, queue: ChunkQueue
) -> None:
    """After Ctrl-C in a long stream, users can continue without loss."""
    ours, theirs = os.openpty()
    async with open_writer("it's a name", queue=queue) as stream:
        await stream.send_chunk("one ")
        await stream.send_chunk("two ")
        await stream.flush()
        process = cli.start("tail", "it's a name", stderr=theirs)
        os.close(theirs)
        assert read_until(process, "two ") == "one two "
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        notice = os.read(ours, 4096).decode()
        os.close(ours)
        await stream.send_chunk("three")
    assert "streamq tail 'it'\"'\"'s a name' --from " in notice
    cursor = notice.split("--from ")[1].split()[0].removesuffix("\x1b[0m")
    assert cli.run("tail", "it's a name", "--from", cursor).out == "three"


def test_a_backend_that_is_down_is_one_line_without_credentials(cli: Cli) -> None:
    """The message is copied into logs that others read."""
    env = {"STREAMQ_BACKEND": "redis", "STREAMQ_REDIS_URL": "redis://me:hunter2@127.0.0.1:1/0"}
    message = one_error(cli.run("tail", "s", env=env))
    assert "127.0.0.1:1" in message
    assert "hunter2" not in message


async def test_attempts_that_are_void_are_left_out_on_request(cli: Cli, queue: ChunkQueue) -> None:
    """Who asks for the answer does not want to read the failure first."""
    for text in ("wr", "ong"):
        writer = await open_writer("s", queue=queue)
        await writer.send_chunk(text)
        await writer.flush()
        await writer.aclose()
    live = await open_writer("s", queue=queue)
    await live.send_chunk("right\n")
    await live.flush()
    process = cli.start("tail", "s", "--attempts", "last")
    assert read_until(process, "right\n") == "right\n"
    await live.send_chunk("and more\n")
    await live.finish()
    assert cli.finish(process).out == "and more\n"
    lines = cli.run("tail", "s", "--attempts", "last", "--json", "--no-follow").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["chunk", "chunk", "end"]
    assert len(cli.run("tail", "s", "--json").out.splitlines()) == 7


async def test_last_attempt_has_no_other_beginning(cli: Cli, queue: ChunkQueue) -> None:
    """Two places to begin at contradict each other."""
    refused = cli.run("tail", "s", "--attempts", "last", "--from", "tail")
    assert refused.code == 2
    assert "--from says 'tail'" in one_error(refused)
    missing = cli.run("tail", "s", "--attempts", "last")
    assert missing.code == 2
    assert "no stream" in one_error(missing)
