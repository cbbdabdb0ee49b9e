"""Runs ``streamq.a2a.tell``: stores what a workflow tells its clients.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio import activity

from streamq._errors import SealedError, StreamqError
from streamq.a2a._entries import TOLD_TOPIC
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal._failure import application_error
from streamq.temporal.activities._context import activity_context

from ._writing import open_task_writer

TELL_ACTIVITY = "streamq.a2a.tell"


@dataclass(frozen=True, slots=True)
class TellRequest:
    """One thing that a workflow tells.

    Attributes:
        first: Number of the first entry, from 0. Those that are stored already are left out.
        entries: The entries.
        is_last: Whether the workflow has nothing more to tell.
    """

    first: int
    entries: list[dict[str, Any]]
    is_last: bool = False


@activity.defn(name=TELL_ACTIVITY)
async def tell(request: TellRequest) -> int:
    """Store what the workflow of this activity tells its clients. Repeating it is harmless.

    Nothing that an earlier run of the workflow still tells is stored after it.

    Returns:
        How many entries are stored.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    context = activity_context()
    try:
        writer = await open_task_writer(context, TOLD_TOPIC)
        try:
            for number, entry in enumerate(request.entries, request.first):
                if number >= writer.position:
                    await writer.send_chunk(entry)
            if request.is_last:
                await writer.finish()
            await writer.flush()
            return writer.position
        finally:
            await to_the_end(writer.aclose())  # the stream stays open for the next call
    except SealedError:
        # An earlier attempt stored the last entry, and was not heard.
        return request.first + len(request.entries)
    except StreamqError as exc:
        raise application_error(exc) from exc
