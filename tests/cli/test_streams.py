"""``streamq ls`` and ``streamq delete``: which streams there are, and fewer of them."""

from __future__ import annotations

import json
import os
import re

import pytest

from streamq import open_writer
from streamq.driver import ChunkQueue

from .command import DATABASE, Cli, Inside, on_terminal, one_error, read_until


async def write(queue: ChunkQueue, *names: str) -> None:
    for name in names:
        async with open_writer(name, queue=queue) as stream:
            await stream.send_chunk("x" * 2000)


async def test_streams_are_listed_with_the_state_of_each(cli: Cli, queue: ChunkQueue) -> None:
    """Whoever has no name at hand can find one without a browser."""
    await write(queue, "poem-2", "poem-10", "other")
    async with open_writer("failed", queue=queue) as failed:
        await failed.send_chunk("x")
        await failed.fail(ValueError("the model caught fire"))
    async with open_writer("open", queue=queue, epoch=1) as stream:
        await stream.send_chunk("x")
        await stream.flush()
        shown, long, as_json = cli.run_each(
            [["ls"], ["ls", "--long", "failed"], ["ls", "--json", "poem-"]]
        )
    header, *rows = [re.split(r" {3,}", line) for line in shown.out.splitlines()]
    assert header == ["name", "state", "attempt", "offset", "size", "expires"]
    assert [row[0] for row in rows] == ["failed", "open", "other", "poem-10", "poem-2"]
    assert [row[1] for row in rows] == ["ERROR", "OPEN", "END", "END", "END"]
    assert rows[2][2:] == ["1", "2", "2.0 KiB", "6 h"]
    assert rows[1][5] == "60 min"
    assert "ValueError: the model caught fire" in long.out.splitlines()[1]
    found = json.loads(as_json.out)
    assert (found["tenant"], found["is_complete"]) == ("default", True)
    assert [each["name"] for each in found["streams"]] == ["poem-10", "poem-2"]
    assert found["streams"][0]["state"] == "END"
    assert shown.err == long.err == as_json.err == ""


@pytest.mark.parametrize(("columns", "framed"), [("200", True), ("60", False)])
async def test_on_a_narrow_terminal_nothing_is_cut_off(
    cli: Cli, queue: ChunkQueue, columns: str, framed: bool
) -> None:
    """Names are long, to be copied, and useless in part."""
    name = f"poem-{'7' * 36}/{'0' * 36}/default"
    async with open_writer(name, queue=queue) as stream:
        await stream.send_chunk("x")
        await stream.cancel()
    shown = on_terminal(cli, "ls", env={"COLUMNS": columns, "NO_COLOR": "1"})
    assert name in shown
    assert "CANCELLED" in shown
    assert ("╭" in shown) is framed


async def test_a_listing_is_bounded_and_says_so(cli: Cli, queue: ChunkQueue) -> None:
    """A shared backend holds more than a screen, and a list that is cut must not look whole."""
    await write(queue, "a", "b", "c")
    shown = cli.run("ls", "--limit", "1")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["name", "a"]
    assert "2 others are not shown" in shown.err


async def test_another_tenant_is_another_list(cli: Cli, queue: ChunkQueue) -> None:
    """Nothing of one tenant is told to who asks for another."""
    await write(queue, "secret-project")
    shown = cli.run("ls", "--tenant", "shop")
    assert (shown.code, shown.out) == (0, "")
    assert "tenant shop" in shown.err
    assert "secret-project" not in shown.err


def test_looking_creates_nothing_and_says_where(inside: Inside) -> None:
    """In a wrong directory an empty database would look like an answer, and stay behind."""
    listed, tailed, waited, deleted = inside.run_each(
        [["ls"], ["tail", "s"], ["tail", "s", "--wait", "0.1"], ["delete", "s", "--yes"]]
    )
    place = str(inside.directory / DATABASE)
    assert (listed.code, listed.out) == (0, "")
    assert place in listed.err
    for finished in (tailed, deleted):
        message = one_error(finished)
        assert f"{place}, which does not exist" in message
    assert waited.code == 2
    assert list(inside.directory.iterdir()) == []


async def test_a_name_that_is_not_quite_right_comes_with_those_that_are(
    cli: Cli, queue: ChunkQueue
) -> None:
    """Most often the workflow's id was taken for the stream's name, or a letter is missing."""
    await write(queue, "poem-7/01a2/default", "poem-7/01a2/log", "other")
    whole, letter = cli.run_each([["tail", "poem-7"], ["delete", "othr", "--yes"]])
    assert "did you mean 'poem-7/01a2/default' or 'poem-7/01a2/log'?" in one_error(whole)
    assert "did you mean 'other'?" in one_error(letter)
    assert "`streamq ls`" in one_error(whole)


async def test_a_deleted_stream_is_gone_and_its_name_free(cli: Cli, queue: ChunkQueue) -> None:
    """A program with a fixed name can be run again without waiting for the stream to expire."""
    await write(queue, "a", "b", "c")
    done = cli.run("delete", "a", "b", "--yes")
    assert (done.code, done.out) == (0, "")
    assert [line.split()[0] for line in cli.run("ls").out.splitlines()] == ["name", "c"]
    await write(queue, "a")


async def test_nothing_is_deleted_without_consent(cli: Cli, queue: ChunkQueue) -> None:
    """What is deleted is gone for good: a script has to say so, and a person is asked."""
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


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tail po", ["poem-7"]),
        ("delete o", ["other"]),
        ("tail --from t", ["tail"]),
        ("demo --backend sql", ["sqlite"]),
        ("demo --delivery p", ["poll"]),
    ],
)
async def test_the_shell_completes_values(
    cli: Cli, queue: ChunkQueue, typed: str, completed: list[str]
) -> None:
    """Names of streams have two uuids in them: nobody types those."""
    await write(queue, "poem-7", "other")
    words = f"streamq {typed}".split()
    env = {
        "_STREAMQ_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    assert cli.run(env=env).out.split() == completed
