"""Encodes stored records for readers that decode them by themselves.

A record is a pair of its position and its bytes in base64. Base64 and JSON make them a third
larger, and every proxy that passes events on passes them on as well.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from streamq.driver import Stored

from ._clients import Client
from ._frames import to_json
from ._pacer import Pacer

_PIECE_BYTES = 196_608  # a multiple of three, so that encoded pieces can be joined


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Encoded records of one read.

    Attributes:
        data: A JSON array of pairs.
        position: The position after the last one.
        is_full: Whether more is probably stored after it.
    """

    data: bytes
    position: str
    is_full: bool

    def frame(self) -> bytes:
        """Return the page as a frame of an event stream."""
        return b"event: records\ndata: %b\n\n" % self.data


async def encode_records(records: Sequence[Stored], pacer: Pacer, client: Client) -> bytes:
    """Return records as a JSON array of pairs, encoded in short steps.

    Args:
        records: The records.
        pacer: Shares the time of the event loop.
        client: In whose turn the work is done.
    """
    parts: list[bytes] = []
    async with pacer.steps(client) as steps:
        for stored in records:
            parts.append(b',[%b,"' % to_json(stored.position).encode("ascii"))
            data = stored.data
            for start in range(0, len(data), _PIECE_BYTES):
                piece = data if len(data) <= _PIECE_BYTES else data[start : start + _PIECE_BYTES]
                parts.append(base64.b64encode(piece))
                await steps.rest()
            parts.append(b'"]')
    return b"[%b]" % b"".join(parts)[1:]


CURRENT_EVENT = b"event: current\ndata: {}\n\n"
"""Says that the client has everything that was stored when it asked; what follows is live."""


def encode_opening_of_records(
    retry_seconds: float, heartbeat_seconds: float, expires_in: float | None
) -> bytes:
    """Return the first bytes of a response with records, which show the client that it is one.

    Args:
        retry_seconds: How long the client should wait before it comes back.
        heartbeat_seconds: Longest silence: a client that hears nothing for much longer has lost
            the connection.
        expires_in: Seconds until the client's token ends.
    """
    fields: dict[str, float] = {"heartbeat_seconds": heartbeat_seconds}
    if expires_in is not None:
        fields["expires_in_seconds"] = round(max(expires_in, 0.0), 3)
    text = f"retry: {round(retry_seconds * 1000)}\nevent: open\ndata: {to_json(fields)}\n\n"
    return text.encode("ascii")
