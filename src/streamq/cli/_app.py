"""Puts the commands together, and converts every failure to one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import streamq
from streamq._errors import StreamqError

from ._backends import backends
from ._config import config
from ._delete import delete
from ._doctor import doctor
from ._ls import ls
from ._schema import schema
from ._serve import serve
from ._sweep import sweep
from ._tail import tail
from ._terminal import SIGINT_EXIT, SIGPIPE_EXIT, discard, show_error
from .demo._command import demo

# Typer bundles click or depends on it, according to its version. This is the common base class of
# all errors in arguments, in either case.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal cannot show are escaped, and never cause a failure.
            stream.reconfigure(errors="backslashreplace")
    # STREAMQ_DATA_CONVERTER usually names a module in this directory. Added last, so that it hides
    # no library.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    app = typer.Typer(
        name="streamq",
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_streamq)
    for command in (demo, ls, tail, serve, delete, sweep, doctor, backends, config, schema):
        app.command()(command)
    try:
        main = typer.main.get_command(app)
        code = main.main(arguments, prog_name="streamq", standalone_mode=False)
        if sys.stdout is not None:  # None in a process that was started without it
            sys.stdout.flush()
    except StreamqError as exc:
        show_error("; ".join((str(exc), *getattr(exc, "__notes__", ()))))
        return 2
    except _UsageProblem as exc:
        show_error(_usage(exc))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return SIGINT_EXIT
    except SystemExit as exc:
        if not isinstance(exc.__context__, BrokenPipeError):
            raise
        discard(sys.stdout)  # typer has turned the closed pipe into an exit code of its own
        return SIGPIPE_EXIT
    except OSError as exc:
        discard(sys.stdout)
        if isinstance(exc, BrokenPipeError):
            return SIGPIPE_EXIT
        is_ours = exc.filename is None and exc.errno in _CANNOT_WRITE
        show_error(f"writing stdout: {exc.strerror}" if is_ours else str(exc))
        return 2
    return code if isinstance(code, int) else 0


def _usage(exc: Exception) -> str:
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "streamq"
    return f"{message.strip().rstrip('.')}; see `{command} --help`"
