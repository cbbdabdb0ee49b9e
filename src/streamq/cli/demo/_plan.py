"""Makes the plan of a demo from the options and the environment; plain values."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from streamq._errors import ConfigurationError
from streamq._settings import Settings

Delivery = Literal["none", "poll"]

_TEXT_PACE = 24.0
_FILE_PACE = 60.0
_MODEL = "gpt-4o-mini"
_STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """The input to stream.

    Attributes:
        activity: Name of the streaming activity.
        args: Its arguments.
        title: Description for people.
        fail_after: Number of chunks after which ``--fail-once`` lets the attempt fail.
        max_attempts: Maximum number of attempts of the activity.
    """

    activity: str
    args: tuple[str | float, ...]
    title: str
    fail_after: int
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a demo.

    Attributes:
        source: The input to stream.
        settings: The settings in effect.
        delivery: Whether chunks pass through the workflow.
        gateway_port: Port of the page; 0 picks a free one.
        fail_once: Whether the first attempt fails.
        keep: Whether the page stays until Ctrl-C.
        as_json: Whether stdout gets the summary as JSON; the rest then goes to stderr.
    """

    source: Source
    settings: Settings
    delivery: Delivery
    gateway_port: int
    fail_once: bool
    keep: bool
    as_json: bool


def choose_source(
    *,
    file: str | None,
    command: str | None,
    stdin: bool,
    prompt: str | None,
    model: str | None,
    pace: float | None,
    fail_once: bool,
) -> Source:
    """Return the input that the options select, by default the bundled text.

    Raises:
        ConfigurationError: The options contradict each other, or their values cannot be used.
    """
    given = {"--file": file, "--exec": command, "--stdin": stdin or None, "--prompt": prompt}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1 and names != ["--file", "--stdin"]:
        raise ConfigurationError(f"{' and '.join(names)} exclude each other; give one of them")
    from_stdin = stdin or file == _STDIN
    if stdin and file not in (None, _STDIN):
        raise ConfigurationError("--file and --stdin exclude each other; give one of them")
    if pace is not None and (from_stdin or command is not None or prompt is not None):
        raise ConfigurationError(
            f"--pace is for files and the bundled text; {names[0]} goes at the pace of its source"
        )
    if model is not None and prompt is None:
        raise ConfigurationError("--model needs --prompt TEXT")
    if from_stdin:
        return _stdin(fail_once=fail_once)
    if file is not None:
        return _file(file, _FILE_PACE if pace is None else pace)
    if command is not None:
        if not command.strip():
            raise ConfigurationError("--exec needs a command, such as --exec 'ping -c 5 localhost'")
        shown = textwrap.shorten(command, 60, placeholder=" ...")
        return Source("stream_command", (command,), f"output of {shown!r}", fail_after=2)
    if prompt is not None:
        return _completion(prompt, model, os.environ)
    text = resources.files(__package__).joinpath("bundled_text.txt").read_text("utf-8")
    return Source(
        "stream_text",
        (text, _TEXT_PACE if pace is None else pace),
        "the bundled text",
        fail_after=len(text.split()) // 3,
    )


def _stdin(*, fail_once: bool) -> Source:
    if fail_once:
        raise ConfigurationError("--fail-once needs an input that can be read twice, not stdin")
    if sys.stdin is None or sys.stdin.closed:
        raise ConfigurationError("standard input is closed")
    return Source("stream_stdin", (), "standard input", fail_after=0, max_attempts=1)


def _file(name: str, pace: float) -> Source:
    path = Path(name).expanduser().absolute()
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise ConfigurationError(f"cannot read --file {name}: {exc.strerror or exc}") from exc
    return Source("stream_file", (str(path), pace), f"file {name}", fail_after=30 if pace else 1)


def _completion(prompt: str, model: str | None, environment: Mapping[str, str]) -> Source:
    if not prompt.strip():
        raise ConfigurationError("--prompt needs a question")
    base, key = environment.get("OPENAI_BASE_URL"), environment.get("OPENAI_API_KEY", "")
    if not base and not key:
        raise ConfigurationError(
            "--prompt needs OPENAI_API_KEY, or OPENAI_BASE_URL of a compatible server "
            "(such as http://127.0.0.1:11434/v1)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("OPENAI_API_KEY contains white space or unusual characters")
    if base:
        try:
            parts = urlsplit(base)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port  # raises if it is not a number
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ConfigurationError("OPENAI_BASE_URL is not an http:// or https:// address")
    chosen = model or environment.get("OPENAI_MODEL") or _MODEL
    return Source("stream_completion", (prompt, chosen), f"answer of {chosen}", fail_after=5)
