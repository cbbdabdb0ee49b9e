"""Names with characters that cannot be seen, or that no shell can pass, in every command."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

from .command import DATABASE, Inside, one_error
from .streams import write

SHOWN = {
    "a\0b": "a%00b",
    "\x1b[31mred": "%1B[31mred",
    "a\nb": "a%0Ab",
    "\x9b31m": "%C2%9B31m",
    "\u202egnp": "%E2%80%AEgnp",
    "\u3000": "%E3%80%80",
    " ends ": "%20ends%20",
    "plain": "plain",
    "a%00b": "a%2500b",
    "100%": "100%",
}


def stored(inside: Inside, *names: str) -> None:
    """Write streams where the command looks for them."""

    async def work() -> None:
        settings = SqliteSettings(path=inside.directory / DATABASE)
        async with await SqliteDriver.open(QueueOptions(ttl=timedelta(hours=1)), settings) as queue:
            await write(queue, *names)

    asyncio.run(work())


def listed(inside: Inside, *arguments: str) -> set[str]:
    out = inside.run("ls", "--json", *arguments).out
    assert is_harmless(out)
    return {each["name"] for each in json.loads(out)["streams"]}


def is_harmless(text: str) -> bool:
    """Whether a terminal shows a text and obeys nothing in it."""
    return text.replace("\n", "").isprintable()


def test_a_list_shows_names_and_commands_take_them_as_shown(inside: Inside) -> None:
    """A name must not clear the operator's terminal, and every stream can be read and deleted."""
    stored(inside, *SHOWN)
    table = inside.run("ls").out
    assert is_harmless(table)
    assert {line.split()[0] for line in table.splitlines()[1:]} == set(SHOWN.values())
    assert listed(inside) == set(SHOWN)
    assert listed(inside, "-e", "%1B[") == {"\x1b[31mred"}
    for name in ("a\0b", " ends ", "a%00b"):
        tail = inside.run("tail", "--json", "--encoded", SHOWN[name])
        assert json.loads(tail.out.splitlines()[-1])["event"] == "end"
    assert inside.run("delete", "--yes", "--encoded", "a%00b").code == 0
    assert listed(inside) == set(SHOWN) - {"a\0b"}, "a name that looks encoded is another stream"
    strange = [shown for name, shown in SHOWN.items() if name not in (shown, "a\0b")]
    deleted = inside.run("delete", "--yes", "--encoded", *strange)
    assert is_harmless(deleted.err)
    assert listed(inside) == {"plain", "100%"}


def test_a_name_that_was_not_marked_as_encoded_is_explained(inside: Inside) -> None:
    """People copy what the list shows."""
    stored(inside, "a\nb", "l")
    assert "--encoded a%0Ab" in one_error(inside.run("tail", "a%0Ab"))
    assert "UTF-8" in one_error(inside.run("tail", "--encoded", "%FF"))
    assert "UTF-8" in one_error(inside.run("ls", "\udcff"))
    assert "UTF-8" in one_error(inside.run("sweep", "--no-temporal", "--prefix", "\udcff"))
