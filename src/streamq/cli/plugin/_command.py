"""``streamq plugin``: the commands ``new``, ``update`` and ``readme``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import streamq
from streamq._errors import ConfigurationError
from streamq.cli._terminal import Table, needs_extra, show_note, show_table, stdout

from ._plugin_names import PluginNames, empty_directory, plugin_names
from ._readme import driver_tables, fill_readme, with_tables
from ._template import ANSWERS, make_plugin, update_plugin

_CONFLICTS_EXIT = 1
_ABOUT = {
    "_driver.py": "opens queues",
    "_errors.py": "client's errors to streamq's",
    "_naming.py": "streams to the backend's names",
    "_queue.py": "the contract: write this",
    "_requests.py": "the connection: write this",
    "_settings.py": "what can be configured",
    "embedded.py": "a server for tests and demos: write this",
    "_harness.py": "how the kit reaches and breaks the backend",
    "_basics.py": "passes at once",
    "_conformance.py": "the kit: its first failure says what to write",
    "latency.py": "beside the bare client",
    "README.md": "its tables: streamq plugin readme",
    ANSWERS: "for streamq plugin update",
}


def plugin_app() -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(name="plugin", rich_markup_mode=None)
    app.callback(invoke_without_command=True)(_plugin)
    for command in (new, update, readme):
        app.command()(command)
    return app


def _plugin(context: typer.Context) -> None:
    """Make the package of a new driver, and keep it up to date.

    \b
    Examples:
      streamq plugin new acme        a package streamq-acme, with the conformance kit in its tests
      streamq plugin readme          renew the tables in the README of the plugin in this directory
      streamq plugin update          bring it up to date after streamq was upgraded
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def new(
    name: Annotated[str, typer.Argument(help="Name of the backend, for STREAMQ_BACKEND.")],
    directory: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Where to make it; by default streamq-NAME here."),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing: take the default of every question.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An answer, which is not asked for; repeatable."),
    ] = None,
) -> None:
    """Make the package of a new driver: its tests say what to write, until the kit passes.

    It asks for a description, the author, how the backend is reached, the client's package and the
    capabilities. The answers are kept in .copier-answers.yml of the new package.

    \b
    Examples:
      streamq plugin new acme
      streamq plugin new acme --defaults
      streamq plugin new acme --defaults --data kind=http --data client_package=httpx
      streamq plugin new shelf --defaults --data kind=embedded --directory plugins/shelf
      streamq plugin new acme --defaults --data 'capabilities=[replay, ordered, cross_process]'

    The kind is tcp, http or embedded. Capabilities: replay, fan_out, ordered, fenced, durable,
    cross_process, cross_host, expires, erases; the default is all that the kind can have.
    """
    names = plugin_names(name)
    target = empty_directory(directory or Path(names.distribution))
    answers = dict(map(_answer, data or []))
    asks = not defaults
    if asks and not sys.stdin.isatty():
        raise ConfigurationError(
            "the questions need a terminal; pass --defaults, and --data KEY=VALUE for answers"
        )
    own = {"name": names.name, "distribution": names.distribution}
    own |= {"module": names.module, "title": names.title}
    with needs_extra("plugin"):
        make_plugin(target, {**answers, **own}, asks=asks)
    fill_readme(target, names)
    _show(names, target)


def update(
    directory: Annotated[
        Path, typer.Option(metavar="PATH", help="Where the plugin is; by default here.")
    ] = Path(),
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing: take the default of new questions.")
    ] = False,
) -> None:
    """Bring a plugin up to date with the template of this streamq, and keep what you changed.

    The plugin has to be in a git repository without uncommitted changes. Nothing is committed. A
    file in which both sides have changed the same lines shows both, between <<<<<<< and >>>>>>>;
    the exit code is 1 then.

    \b
    Examples:
      pip install --upgrade 'streamq[plugin]' && streamq plugin update
      streamq plugin update --directory plugins/shelf --defaults
    """
    with needs_extra("plugin"):
        made_by, files, conflicts = update_plugin(
            directory.absolute(), asks=not defaults and sys.stdin.isatty()
        )
    if not files:
        show_note(f"made by streamq {made_by}: nothing changes with {streamq.__version__}")
        return
    table = Table("file", f"from streamq {made_by} to {streamq.__version__}")
    for file in files:
        is_open = file in conflicts
        outcome = Text("conflict: choose between both sides", style="red")
        table.add_row(file, outcome if is_open else Text("up to date"))
    show_table(table, stdout())
    if conflicts:
        raise typer.Exit(_CONFLICTS_EXIT)


def readme(
    file: Annotated[Path, typer.Argument(help="The document.")] = Path("README.md"),
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if it is out of date.")
    ] = False,
) -> None:
    """Write the tables of capabilities and settings in a plugin's README from its driver.

    A table stands between <!-- begin capabilities NAME --> and <!-- end capabilities NAME -->, or
    settings instead of capabilities. The plugin has to be installed.

    \b
    Examples:
      streamq plugin readme
      streamq plugin readme --check
    """
    text = file.read_text("utf-8")
    try:
        renewed = with_tables(text, driver_tables())
    except KeyError as exc:
        raise ConfigurationError(
            f"{file} has a table {exc.args[0]!r}, and no driver of that name is installed; run: "
            "pip install -e ."
        ) from exc
    if check and renewed != text:
        show_note(f"{file} is out of date; run: streamq plugin readme")
        raise typer.Exit(1)
    if not check:
        file.write_text(renewed, "utf-8")


def _answer(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--data {text!r} is not of the form KEY=VALUE")
    return name, value


def _show(names: PluginNames, target: Path) -> None:
    """Print what was made, and what to do next."""
    console = stdout()
    for line in (Text(str(target), style="bold"), *_tree(target)):
        console.print(line, soft_wrap=True)
    steps = (
        f"cd {shlex.quote(str(target))}",
        "git init && git add --all && git commit -m 'Begin'",
        "pip install --upgrade 'pip>=25.1'",  # earlier ones do not know --group
        "pip install -e . --group dev",
        "pytest -x",
    )
    console.print()
    console.print(Text("Next steps:"))
    for step in steps:
        console.print(Text(f"  {step}"), soft_wrap=True)
    console.print(
        Text(
            f"The first failure says what to write first; {names.distribution}/README.md has the "
            "rest."
        ),
        soft_wrap=True,
    )


def _tree(folder: Path, indent: str = "") -> Iterator[Text]:
    """Yield a line for each file, and what it is for."""
    paths = sorted(folder.iterdir(), key=lambda each: (each.is_dir(), each.name))
    for path in paths:
        is_last = path == paths[-1]
        guide = f"{indent}{'└── ' if is_last else '├── '}"
        about = next((f"  {text}" for end, text in _ABOUT.items() if path.name.endswith(end)), "")
        yield Text.assemble((guide, "dim"), path.name, (about, "dim"))
        if path.is_dir():
            yield from _tree(path, indent + ("    " if is_last else "│   "))
