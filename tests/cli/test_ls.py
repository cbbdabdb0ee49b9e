"""``streamq ls``."""

from __future__ import annotations

import json
import re

import pytest

from streamq import open_writer
from streamq.driver import ChunkQueue

from .command import Cli, on_terminal
from .streams import write


async def test_streams_are_listed_with_the_state_of_each(cli: Cli, queue: ChunkQueue) -> None:
    """A user who does not know a name can find it without a browser."""
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
async def test_on_a_narrow_terminal_nothing_is_shortened(
    cli: Cli, queue: ChunkQueue, columns: str, framed: bool
) -> None:
    """Names are long and are copied, so a shortened name is useless."""
    name = f"poem-{'7' * 36}/{'0' * 36}/default"
    async with open_writer(name, queue=queue) as stream:
        await stream.send_chunk("x")
        await stream.cancel()
    shown = on_terminal(cli, "ls", env={"COLUMNS": columns, "NO_COLOR": "1"})
    assert name in shown
    assert "CANCELLED" in shown
    assert ("╭" in shown) is framed


async def test_a_listing_is_bounded_and_says_so(cli: Cli, queue: ChunkQueue) -> None:
    """A shared backend holds many streams; a list that is cut off must not look complete."""
    await write(queue, "a", "b", "c")
    shown = cli.run("ls", "--limit", "1")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["name", "a"]
    assert "2 others are not shown" in shown.err


async def test_another_tenant_is_another_list(cli: Cli, queue: ChunkQueue) -> None:
    """A listing for one tenant must show nothing of another."""
    await write(queue, "secret-project")
    shown = cli.run("ls", "--tenant", "shop")
    assert (shown.code, shown.out) == (0, "")
    assert "tenant shop" in shown.err
    assert "secret-project" not in shown.err
