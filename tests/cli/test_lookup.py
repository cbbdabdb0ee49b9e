"""Commands on streams that do not exist: the location, and similar names."""

from __future__ import annotations

from streamq.driver import ChunkQueue

from .command import DATABASE, Cli, Inside, one_error
from .streams import write


def test_listing_creates_nothing_and_shows_the_location(inside: Inside) -> None:
    """In a wrong directory, a new empty database would look like an answer, and remain."""
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


async def test_a_mistyped_name_is_answered_with_similar_ones(cli: Cli, queue: ChunkQueue) -> None:
    """Often the workflow's id is used instead of the stream's name, or a letter is missing."""
    await write(queue, "poem-7/01a2/default", "poem-7/01a2/log", "other")
    whole, letter = cli.run_each([["tail", "poem-7"], ["delete", "othr", "--yes"]])
    assert "did you mean 'poem-7/01a2/default' or 'poem-7/01a2/log'?" in one_error(whole)
    assert "did you mean 'other'?" in one_error(letter)
    assert "`streamq ls`" in one_error(whole)
