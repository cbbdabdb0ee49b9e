"""Puts the commands together, and converts every failure to one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import streamq

from ._a2a import a2a
from ._backends import backends
from ._config import config
from ._delete import delete
from ._doctor import doctor
from ._failures import readable_logs, reported
from ._ls import ls
from ._schema import schema
from ._serve import serve
from ._standard_streams import flush, prepare_standard_streams
from ._sweep import sweep
from ._tail import tail
from ._token import token
from ._token_revoke import revoke
from .demo._command import demo
from .plugin._command import plugin_app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamq {streamq.__version__}")
        raise typer.Exit


def _streamq(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Follow the output of Temporal activities while they run.

    Configured by STREAMQ_... variables, .env and streamq.toml: `streamq config` shows them.

    \b
    Examples:
      streamq demo                             a demo that needs nothing else
      STREAMQ_BACKEND=redis streamq demo       the same on another backend
      streamq backends                         installed backends and their capabilities
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return the exit code."""
    prepare_standard_streams()
    app = typer.Typer(
        name="streamq",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_streamq)
    for command in (demo, ls, tail, serve, delete, sweep, doctor, backends, config, schema):
        app.command()(command)
    app.add_typer(plugin_app())
    token.command()(revoke)
    app.add_typer(token)
    app.add_typer(a2a)
    with readable_logs():
        try:
            main = typer.main.get_command(app)
            code = main.main(arguments, prog_name="streamq", standalone_mode=False)
            flush(sys.stdout)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, one place reports it
            return reported(exc)
    return code if isinstance(code, int) else 0
