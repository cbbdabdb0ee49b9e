"""Completion of arguments in the shell."""

from __future__ import annotations

import pytest

from streamq.driver import ChunkQueue

from .command import Cli
from .streams import write


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tail po", ["poem-7"]),
        ("delete o", ["other"]),
        ("tail a", ["a%b"]),  # completions are lines: a name with a newline would be two of them
        ("tail -e a%", ["a%0Ab", "a%25b"]),
        ("tail --from t", ["tail"]),
        ("tail --from l", ["last"]),
        ("demo --backend sql", ["sqlite"]),
        ("demo --delivery p", ["poll"]),
    ],
)
async def test_the_shell_completes_values(
    cli: Cli, queue: ChunkQueue, typed: str, completed: list[str]
) -> None:
    """Names of streams contain two uuids, which are not typed by hand."""
    await write(queue, "poem-7", "other", "a\nb", "a%b")
    words = f"streamq {typed}".split()
    env = {
        "_STREAMQ_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    assert cli.run(env=env).out.split() == completed
