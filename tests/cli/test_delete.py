"""``streamq delete``."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from streamq import StreamId, TrimmedError, open_reader, open_writer
from streamq._sqlite._queue import SqliteQueue
from streamq.driver import ChunkQueue, Entry, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

from .command import DATABASE, Cli, Inside, one_error, read_until
from .streams import write


async def test_a_deleted_stream_is_gone_and_its_name_free(cli: Cli, queue: ChunkQueue) -> None:
    """A program with a fixed name can be run again without waiting for the stream to expire."""
    await write(queue, "a", "b", "c")
    done = cli.run("delete", "a", "b", "--yes")
    assert (done.code, done.out) == (0, "")
    assert [line.split()[0] for line in cli.run("ls").out.splitlines()] == ["name", "c"]
    await write(queue, "a")


async def test_nothing_is_deleted_without_consent(cli: Cli, queue: ChunkQueue) -> None:
    """Deletion is final: a script has to confirm it by an option, and a user is asked."""
    await write(queue, "a", "b")
    assert "--yes" in one_error(cli.run("delete", "a"))
    assert "default/nope" in one_error(cli.run("delete", "a", "nope", "--yes"))
    for answer, code in ((b"n\n", 130), (b"y\n", 0)):
        assert "\na " in cli.run("ls").out
        ours, theirs = os.openpty()
        process = cli.start("delete", "a", stdin=theirs)
        os.close(theirs)
        asked = read_until(process, "[y/N]", from_stderr=True)
        assert "default/a (END, 2 events)" in asked
        os.write(ours, answer)
        assert cli.finish(process).code == code
        os.close(ours)
    assert "\nb " in cli.run("ls").out
    assert "\na " not in cli.run("ls").out


WORKFLOW = "chat/7"
RUNS = ("6f1c0a52-0d0b-4b52-9f7d-0a3a54e7b0aa", "6f1c0a52-0d0b-4b52-9f7d-0a3a54e7b0ab")


async def test_all_streams_of_a_workflow_are_deleted(cli: Cli, queue: ChunkQueue) -> None:
    """Of each run and topic, and nothing of a workflow whose id only begins like it."""
    ours = [f"{WORKFLOW}/{run}/{topic}" for run in RUNS for topic in ("default", "log")]
    others = [f"{WORKFLOW}0/{RUNS[0]}/default", f"{WORKFLOW}/{RUNS[0]}", "chat/x"]
    others.append(f"{WORKFLOW}/activity-{RUNS[0]}/default")  # an activity with the same id
    await write(queue, *ours, *others)
    done = cli.run("delete", "--workflow", WORKFLOW, "--yes")
    assert (done.code, done.out) == (0, "")
    assert "deleted 4 streams of tenant default" in done.err
    found = [info.stream.name async for info in queue.streams("default")]
    assert sorted(found) == sorted(others)


async def test_all_streams_below_a_prefix_or_of_a_tenant_are_deleted(
    cli: Cli, queue: ChunkQueue
) -> None:
    """The user sees what it is about before anything is done."""
    await write(queue, *(f"a{i}" for i in range(7)), "b")
    assert "--yes" in one_error(cli.run("delete", "--prefix", "a"))
    assert cli.run("delete", "--prefix", "a", "--yes").code == 0
    assert [info.stream.name async for info in queue.streams("default")] == ["b"]
    done = cli.run("delete", "--tenant", "another", "--all", "--yes")
    assert "tenant another has no such stream" in done.err
    assert [info.stream.name async for info in queue.streams("default")] == ["b"]
    ours, theirs = os.openpty()
    process = cli.start("delete", "--all", stdin=theirs)
    os.close(theirs)
    asked = read_until(process, "[y/N]", from_stderr=True)
    assert "Delete 1 stream of tenant default (b)?" in asked
    os.write(ours, b"y\n")
    assert cli.finish(process).code == 0
    os.close(ours)
    assert [info.stream.name async for info in queue.streams("default")] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "--all"],
        ["--all", "--prefix", "a"],
        ["--workflow", "a", "--prefix", "b"],
        ["--prefix", ""],
        ["--workflow", ""],
    ],
)
def test_what_is_to_be_deleted_is_said_once(cli: Cli, arguments: list[str]) -> None:
    """An empty variable in a script must not delete a tenant's streams."""
    done = cli.run("delete", *arguments, "--yes")
    assert done.code == 2
    assert "--all" in done.err


async def test_a_producer_that_still_runs_is_warned_of(cli: Cli, queue: ChunkQueue) -> None:
    """It gets no error and brings its stream back: whoever deletes has to know that."""
    await write(queue, "ended")
    assert "OPEN" not in cli.run("delete", "ended", "--yes").err
    for arguments in (["running"], ["--prefix", "run"]):
        async with open_writer("running", queue=queue) as writer:
            await writer.send_chunk("before")
            await writer.flush()
            refused = cli.run("delete", *arguments)
            assert refused.code == 2
            assert "1 of them is OPEN" in refused.err
            done = cli.run("delete", *arguments, "--yes")
            assert done.code == 0
            assert "1 of them was OPEN" in done.err
            assert not [info async for info in queue.streams("default")]
            await writer.send_chunk("after")
        with pytest.raises(TrimmedError):
            async with open_reader("running", queue=queue) as reader:
                [event async for event in reader]
        await queue.delete(StreamId("default", "running"))


def test_what_producers_begin_anew_is_reported(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Deleted 2 streams" would say of text that has to be forgotten that it is."""
    delete = SqliteQueue.delete

    async def write_first() -> None:
        options = QueueOptions(ttl=timedelta(hours=1))
        settings = SqliteSettings(path=inside.directory / DATABASE)
        async with await SqliteDriver.open(options, settings) as queue:
            await write(queue, "a", "b")

    async def delete_and_begin_anew(queue: SqliteQueue, stream: StreamId) -> None:
        await delete(queue, stream)
        if stream.name == "a":
            await queue.append(stream, [Entry(1, 0, b"text")])

    asyncio.run(write_first())
    monkeypatch.setattr(SqliteQueue, "delete", delete_and_begin_anew)
    done = inside.run("delete", "--all", "--yes")
    assert done.code == 1
    assert "deleted 2 streams of tenant default, and 1 are left (a)" in done.err
    assert "stop their producers" in done.err
