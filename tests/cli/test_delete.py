"""``streamq delete``."""

from __future__ import annotations

import os

from streamq.driver import ChunkQueue

from .command import Cli, one_error, read_until
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
