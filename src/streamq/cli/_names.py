"""Takes names of streams from the command line, and shows them there.

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import shlex
from typing import Annotated, TypeAlias
from urllib.parse import unquote

import typer

from streamq._errors import ConfigurationError
from streamq._events import shown

Encoded: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--encoded",
        "-e",
        help="The argument is percent-encoded, as names with invisible characters are shown.",
    ),
]
"""Option of the commands that take a name."""


def named(argument: str, *, encoded: bool) -> str:
    """Return the name, or the beginning of names, that an argument means.

    Raises:
        ConfigurationError: It is not valid Unicode, encoded or not.
    """
    try:
        name = unquote(argument, errors="strict") if encoded else argument
        name.encode()
    except UnicodeError as exc:
        raise ConfigurationError(
            f"{argument!r} is not text in UTF-8; `streamq ls` shows names as --encoded takes them"
        ) from exc
    return name


def argument_for(name: str) -> str:
    """Return what a shell has to be given for a name, with ``--encoded`` if it needs that."""
    return shlex.quote(name) if shown(name) == name else f"--encoded {shlex.quote(shown(name))}"


def encoded_name(name: str) -> str:
    """Return a name as ``--encoded`` takes it."""
    return name.replace("%", "%25") if shown(name) == name else shown(name)
