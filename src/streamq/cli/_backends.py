"""``streamq backends``: lists the installed drivers and their capabilities."""

from __future__ import annotations

import dataclasses
from typing import Annotated, TypedDict

import typer
from rich.text import Text

from streamq._capabilities import Capabilities
from streamq._errors import BackendLoadError
from streamq._settings import load_settings
from streamq.opening._drivers import installed_drivers, load_driver

from ._terminal import Table, one_line, show_json, show_table, stdout


class BackendFacts(TypedDict):
    """Facts about one installed driver; ``error`` states why the rest is missing."""

    name: str
    distribution: str
    selected: bool
    summary: str | None
    capabilities: dict[str, bool | int | str] | None
    error: str | None


def backends(
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """List the installed backends and the capabilities of each.

    STREAMQ_BACKEND selects one. A driver that cannot be loaded is listed with the reason.

    \b
    Examples:
      streamq backends
      streamq backends --json
    """
    selected = load_settings().backend
    found = [_facts(name, dist, selected) for name, dist in installed_drivers().items()]
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
    for title in (*(name for name, _ in usable), "meaning"):
        table.add_column(title)
    for field in dataclasses.fields(Capabilities):
        cells = [_cell(field.name, caps[field.name]) for _, caps in usable]
        table.add_row(field.name, *cells, Text(field.metadata["help"], style="dim"))
    console.print()
    show_table(table, console)


def _cell(name: str, value: bool | int | str) -> Text:
    if isinstance(value, bool):
        return Text("yes", style="green") if value else Text("no", style="yellow")
    if name.endswith("_bytes") and isinstance(value, int):
        return Text(f"{value / 2**20:g} MiB" if value >= 2**20 else f"{value / 2**10:g} KiB")
    return Text(str(value))
