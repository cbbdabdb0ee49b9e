"""``streamq backends``: lists the installed drivers and their capabilities."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, TypedDict

import typer
from rich.text import Text

from streamq._capabilities import Capabilities
from streamq._errors import BackendLoadError, StreamqError
from streamq._settings import Settings, load_settings
from streamq.opening._drivers import installed_drivers, load_driver
from streamq.opening._open import open_queue

from ._lookup import missing_database
from ._terminal import Table, one_line, run_async, show_json, show_note, show_table, stdout

_OPEN_SECONDS = 5.0


class BackendFacts(TypedDict):
    """Facts about one installed driver; ``error`` states why the rest is missing.

    ``open_capabilities`` are those of a queue that was opened with the settings in effect: what a
    server does not do is missing there. Only the selected backend is opened.
    """

    name: str
    distribution: str
    selected: bool
    summary: str | None
    capabilities: dict[str, bool | int | str] | None
    open_capabilities: dict[str, bool | int | str] | None
    error: str | None


def backends(
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """List the installed backends and the capabilities of each.

    STREAMQ_BACKEND selects one. It is opened if that is possible, since its server may promise less
    than the driver can: that is the column "open". A driver that cannot be loaded is listed with
    the reason.

    \b
    Examples:
      streamq backends
      streamq backends --json
    """
    settings = load_settings()
    selected = settings.backend
    found = [_facts(name, dist, selected) for name, dist in installed_drivers().items()]
    for facts in found:
        if facts["selected"] and facts["capabilities"] is not None:
            _open(facts, settings)
    if as_json:
        show_json({"selected": selected, "backends": found})
    else:
        _show(found)
    if selected not in [facts["name"] for facts in found]:
        load_driver(selected)  # raises the error about the name


def _facts(name: str, distribution: str, selected: str) -> BackendFacts:
    facts = BackendFacts(
        name=name,
        distribution=distribution,
        selected=name == selected,
        summary=None,
        capabilities=None,
        open_capabilities=None,
        error=None,
    )
    try:
        driver = load_driver(name)
    except BackendLoadError as exc:
        facts["error"] = one_line(str(exc))
    else:
        facts["summary"] = driver.summary
        facts["capabilities"] = driver.capabilities.to_dict()
    return facts


def _open(facts: BackendFacts, settings: Settings) -> None:
    """Add what the open queue promises, or say why it could not be opened."""

    async def work() -> int:
        async with asyncio.timeout(_OPEN_SECONDS), open_queue(settings) as queue:
            facts["open_capabilities"] = queue.capabilities.to_dict()
        return 0

    reason = ""
    try:
        if (absent := missing_database(settings)) is not None:
            reason = f"{absent} does not exist yet"
        else:
            run_async(work)
    except StreamqError as exc:
        reason = str(exc)
    except TimeoutError:
        reason = f"no answer within {_OPEN_SECONDS:g} s"
    if reason:
        show_note(
            f"backend {facts['name']} was not opened, so that its capabilities are those of the "
            f"driver: {reason}"
        )


def _show(found: list[BackendFacts]) -> None:
    console = stdout()
    overview = Table("backend", "from", "what it is")
    for facts in found:
        name = Text(facts["name"])
        if facts["selected"]:
            name = Text.assemble((facts["name"], "bold"), " (selected)")
        about = Text(facts["summary"] or "")
        if facts["error"]:
            about = Text(f"cannot be used: {facts['error']}", style="red")
        overview.add_row(name, Text(facts["distribution"]), about)
    show_table(overview, console)

    usable = [(facts["name"], caps) for facts in found if (caps := facts["capabilities"])]
    table = Table()
    longest = max(len(field.name) for field in dataclasses.fields(Capabilities))
    table.add_column("capability", min_width=longest)
    opened = [
        (f"{facts['name']}, open", caps) for facts in found if (caps := facts["open_capabilities"])
    ]
    for title in (*(name for name, _ in (*usable, *opened)), "meaning"):
        table.add_column(title)
    for field in dataclasses.fields(Capabilities):
        cells = [_cell(field.name, caps[field.name]) for _, caps in (*usable, *opened)]
        table.add_row(field.name, *cells, Text(field.metadata["help"], style="dim"))
    console.print()
    show_table(table, console)


def _cell(name: str, value: bool | int | str) -> Text:
    if isinstance(value, bool):
        return Text("yes", style="green") if value else Text("no", style="yellow")
    if name.endswith("_bytes") and isinstance(value, int):
        return Text(f"{value / 2**20:g} MiB" if value >= 2**20 else f"{value / 2**10:g} KiB")
    return Text(str(value))
