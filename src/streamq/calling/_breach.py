"""Makes the errors that say how a driver broke the contract.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

from streamq._errors import DriverError, StreamqError, error_text
from streamq._events import StreamId

_SHOWN_CHARACTERS = 80


def breach(what: str, see: str, *, backend: object, stream: StreamId | None = None) -> DriverError:
    """Return the error for a driver that broke the contract.

    Args:
        what: What it did, and what it should have done.
        see: The part of :mod:`streamq.driver` that demands it.
        backend: The driver's name, as far as it has one.
        stream: The stream concerned.
    """
    name = backend if isinstance(backend, str) else str(shown(backend))
    return DriverError(
        f"backend {name!r} broke the contract: {what}; see {see} in streamq.driver, and tell the "
        "authors of that driver",
        backend=name,
        stream=None if stream is None else str(stream),
    )


def is_permitted(exc: BaseException) -> bool:
    """Whether a call of a driver may raise an exception.

    It may raise errors of streamq, a cancellation by the caller, and what ends the process.
    """
    if isinstance(exc, asyncio.CancelledError):
        return _is_cancelled()
    return isinstance(exc, StreamqError) or not isinstance(exc, Exception)


def unexpected(
    exc: BaseException,
    method: str,
    *,
    backend: object,
    of: type[object],
    stream: StreamId | None = None,
) -> DriverError:
    """Return the error for an exception that is not permitted; to be raised from it.

    It is not raised here: this frame would keep the exception, and with it the queue, in memory.

    Args:
        exc: What the call raised.
        method: The call, as in ``ChunkQueue.read``.
        backend: The driver's name.
        of: The class of the driver or its queue, to tell where in its code this came from.
        stream: The stream concerned.
    """
    call = method.rpartition(".")[2]
    if isinstance(exc, asyncio.CancelledError):
        what = f"{call}() raised CancelledError although nobody cancelled the call"
    else:
        what = (
            f"{call}() raised {type(exc).__name__}: {error_text(exc)} ({_origin(exc, of)}), where "
            "only errors of streamq are expected"
        )
    return breach(what, method, backend=backend, stream=stream)


def shown(value: object) -> str:
    """Return a value in a form for messages: short, and whatever its class."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - code of others
        text = ""
    if 0 < len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"an object of type {type(value).__name__}"


def _is_cancelled() -> bool:
    """Whether somebody has asked the running task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _origin(exc: BaseException, of: type[object]) -> str:
    """Return the place in the driver's code that an exception passed last."""
    try:
        home = Path(inspect.getfile(of)).parent
    except (OSError, TypeError):  # a class made in an interactive session
        home = None
    frames = []
    trace = exc.__traceback__
    while trace is not None:
        frames.append((Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno))
        trace = trace.tb_next
    theirs = [each for each in frames if home is not None and home in each[0].parents]
    file, line = (theirs or frames)[-1]
    return f"{file.name}, line {line}"
