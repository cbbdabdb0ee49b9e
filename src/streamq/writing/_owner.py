"""Lets what runs a producer decide how the stream of a writer ends that was left by an exception.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from streamq._errors import error_text, is_cancellation
from streamq._events import SealState, StreamId


@dataclass(frozen=True, slots=True)
class Decision:
    """How a stream ends whose writer was left by an exception.

    Attributes:
        closes: Whether the writer is closed now; otherwise the owner seals and closes it later.
        state: State of the seal to send before; ``None`` leaves the stream open.
        error_type: Type of the failure for readers.
        message: Message for readers.
    """

    closes: bool
    state: SealState | None = None
    error_type: str = ""
    message: str = ""


class WriterOwner(Protocol):
    """Runs producers and repeats them, as Temporal does with activities."""

    def left(self, writer: Any, error: BaseException) -> Decision:
        """Decide about a ``StreamWriter`` whose ``async with`` was left by an exception."""
        ...

    async def opens(self, stream: StreamId) -> None:
        """Wait for what has to be stored before a stream is opened for writing."""
        ...


current_owner: ContextVar[WriterOwner | None] = ContextVar("streamq_writer_owner", default=None)
"""The owner of the writers that the running code opens; by default a writer decides itself."""


def leave(writer: Any, error: BaseException) -> bool:
    """Request the seal of a ``StreamWriter`` that an exception has left.

    Returns:
        Whether the writer is closed now.
    """
    owner = current_owner.get()
    if owner is not None:
        ending = owner.left(writer, error)
    elif is_cancellation(error):
        ending = Decision(True, SealState.CANCELLED)
    else:
        ending = Decision(True, SealState.ERROR, type_name(error), error_text(error))
    if ending.state is not None:  # aclose waits for it
        writer._request_seal(ending.state, error_type=ending.error_type, message=ending.message)
    return ending.closes


def withdraw_seals(*writers: Any) -> bool:
    """Forget the seals that were requested of several ``StreamWriter``, or none of them.

    Returns:
        Whether no seal is requested now, so that other endings can be. ``False`` changes nothing:
        the seal of one, or a chunk that batch mode has released with it, is stored or in flight.
    """
    with contextlib.ExitStack() as locks:
        for writer in writers:
            locks.enter_context(writer._lock)
        boxes = [writer._outbox for writer in writers]
        return all(box.can_withdraw_seal for box in boxes) and all(
            box.withdraw_seal() for box in boxes
        )


def type_name(error: BaseException | str) -> str:
    """Return the name of a failure for readers: its class."""
    return "Error" if isinstance(error, str) else type(error).__name__
