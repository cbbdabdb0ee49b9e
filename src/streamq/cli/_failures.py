"""Converts every failure of a command to one line on standard error and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator

import typer

from streamq._configuration_files import DEBUG_VARIABLE
from streamq._errors import ConfigurationError, StreamqError, error_text
from streamq._setting_origins import SettingOrigin
from streamq._settings import Settings, origins_of, variable_of
from streamq.driver_parts._credentials import mask_credentials
from streamq.opening._drivers import load_driver

from ._standard_streams import discard, flush
from ._terminal import SIGINT_EXIT, SIGPIPE_EXIT, one_line, show_error, stderr_line

FAILURE_EXIT = 2

# Typer bundles click or depends on it, according to its version. This is the common base class of
# all errors in arguments, in either case.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
_MOST_REASONS = 3
_VARIABLE = re.compile(r"\bSTREAMQ_[A-Z0-9_]+")


def reported(exc: BaseException) -> int:
    """Show a failure as one line, and return the exit code.

    With STREAMQ_DEBUG=1 the traceback comes first, masked and escaped like everything else. A group
    of failures is shown by its different reasons.

    Raises:
        SystemExit: It was raised to end the process, and not because of a closed pipe.
    """
    if isinstance(exc, SystemExit):
        if not isinstance(exc.__context__, BrokenPipeError):
            raise exc
        discard(sys.stdout)  # typer has turned the closed pipe into an exit code of its own
        return SIGPIPE_EXIT
    causes = list(_leaves(exc))
    if any(isinstance(each, KeyboardInterrupt | typer.Abort) for each in causes):
        return SIGINT_EXIT
    if any(isinstance(each, BrokenPipeError) for each in causes):
        discard(sys.stdout)
        return SIGPIPE_EXIT
    failures = [each for each in causes if not isinstance(each, asyncio.CancelledError)]
    if is_debugging() and not all(isinstance(each, _UsageProblem) for each in failures):
        _show_traceback(exc)
    reasons = list(dict.fromkeys(_reason(each) for each in failures or causes))
    more = f"; and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
    show_error("; ".join(reasons[:_MOST_REASONS]) + more)
    try:
        flush(sys.stdout)
    except (OSError, ValueError):
        discard(sys.stdout)
    return FAILURE_EXIT


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "").strip().lower() not in ("", "0", "false", "no")


@contextlib.contextmanager
def readable_logs() -> Iterator[None]:
    """Show what libraries log, and nothing else handles, as lines without secrets and sequences."""
    before = logging.lastResort
    logging.lastResort = _LogLines(logging.WARNING)
    try:
        yield
    finally:
        logging.lastResort = before


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong call of another library
            text = str(record.msg)
        exc = record.exc_info[1] if record.exc_info else None
        if exc is not None and not is_debugging():
            text = f"{text}: {type(exc).__name__}: {error_text(exc)}"
        stderr_line(one_line(text))
        if exc is not None and is_debugging():
            _show_traceback(exc)


def _show_traceback(exc: BaseException) -> None:
    trace = mask_credentials("".join(traceback.format_exception(exc)))
    for line in trace.splitlines():
        stderr_line(line)


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    else:
        yield exc


def _reason(exc: BaseException) -> str:
    if isinstance(exc, StreamqError):
        text = "; ".join((str(exc), *getattr(exc, "__notes__", ())))
        return "; ".join((text, *_places(text))) if isinstance(exc, ConfigurationError) else text
    if isinstance(exc, _UsageProblem):
        return _usage(exc)
    if isinstance(exc, OSError) and exc.filename is None and exc.errno in _CANNOT_WRITE:
        why = "it is closed" if exc.errno == errno.EBADF else exc.strerror
        return f"writing stdout: {why}"
    if isinstance(exc, OSError) and exc.strerror:
        return error_text(exc)
    return (
        f"unexpected {': '.join(filter(None, (type(exc).__name__, error_text(exc))))}; "
        f"{DEBUG_VARIABLE}=1 shows where it comes from"
    )


def _usage(exc: Exception) -> str:
    message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "streamq"
    return f"{message.strip().rstrip('.')}; see `{command} --help`"


def _places(message: str) -> Iterator[str]:
    """Yield where the settings that a message names are set, if a file sets them."""
    named = set(_VARIABLE.findall(message))
    found: dict[str, SettingOrigin] = {}
    with contextlib.suppress(StreamqError):
        ours = origins_of(Settings)
        found |= {variable_of(Settings, name): origin for name, origin in ours.items()}
        backend = str(ours["backend"].value if "backend" in ours else "sqlite").strip().lower()
        kind = load_driver(backend).settings_type
        found |= {variable_of(kind, name): each for name, each in origins_of(kind).items()}
    for variable in sorted(named & found.keys()):
        file = found[variable].file
        if file is not None and str(file.path) not in message:
            yield f"{variable} is set by {found[variable]}"
