"""Gives an event the form in which readers record it."""

from __future__ import annotations

from typing import Any

from streamq import Chunk, Event, Seal

from ._workload import digest


def fields_of(event: Event) -> dict[str, Any]:
    """Return the recorded form of an event."""
    fields: dict[str, Any] = {"o": event.offset, "a": event.attempt}
    if isinstance(event, Chunk):
        return fields | {"k": "chunk", "n": event.seq, "d": digest(event.value)}
    if isinstance(event, Seal):
        return fields | {"k": "end", "state": event.state.name, "text": event.message}
    return fields | {"k": type(event).__name__.lower()}
