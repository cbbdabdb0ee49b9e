"""Takes what streams have ready to one writer, one stream after the other.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_TAKEN_BYTES = 65_536
_WAITING_BYTES = 262_144


class PieceKind(enum.Enum):
    """What the writer has to add to a piece when it sends it."""

    EVENTS = "events"
    """Encoded events: they get the name of their stream, and ids."""
    PLACED = "placed"
    """A frame that is complete but for its id, if frames have ids."""
    PLAIN = "plain"
    """A frame without an id."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece(Generic[T]):
    """Bytes that wait for the writer.

    Attributes:
        source: The stream that they come from; ``None`` if they concern none.
        data: The bytes.
        kind: What they are.
        taken: Done when the writer has taken them.
    """

    source: T | None
    data: bytes
    kind: PieceKind
    taken: asyncio.Future[None]


class Rotation(Generic[T]):
    """Holds at most one piece of each stream, in the order in which they became ready.

    A stream whose piece waits reads no further, so a slow client falls back to the log at the
    place of each stream, and a stream with much to send waits behind all others after each piece.
    """

    def __init__(self) -> None:
        self._pieces: deque[Piece[T]] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._pieces)

    def wake(self) -> None:
        """End the wait of :meth:`take`, also if nothing is ready."""
        self._changed.set()

    async def room(self) -> None:
        """Wait until there is room for more, before something is read that would wait here."""
        await self._room.wait()

    async def put(self, source: T, data: bytes, kind: PieceKind) -> None:
        """Hand over a piece, and wait until the writer has taken it.

        Cancellation: the piece is withdrawn, unless it was taken.
        """
        piece = self._append(source, data, kind)
        try:
            await piece.taken
        except asyncio.CancelledError:
            if piece in self._pieces:
                self._pieces.remove(piece)
                self._count(-len(data))
            raise

    def post(self, frame: bytes) -> None:
        """Hand over a frame that concerns no stream; there are few of them."""
        self._append(None, frame, PieceKind.PLAIN)

    async def take(self, max_wait: float) -> list[Piece[T]]:
        """Return the pieces that are ready, about 64 KiB at most, and at least one.

        Returns:
            Nothing after ``max_wait``, or after :meth:`wake`.
        """
        if not self._pieces:
            self._changed.clear()
            try:
                async with asyncio.timeout(max_wait):
                    await self._changed.wait()
            except TimeoutError:
                return []
        found: list[Piece[T]] = []
        size = 0
        while self._pieces and (not found or size + len(self._pieces[0].data) <= _TAKEN_BYTES):
            piece = self._pieces.popleft()
            size += len(piece.data)
            found.append(piece)
            if not piece.taken.done():
                piece.taken.set_result(None)
        self._count(-size)
        return found

    def _append(self, source: T | None, data: bytes, kind: PieceKind) -> Piece[T]:
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        piece = Piece(source, data, kind, taken)
        self._pieces.append(piece)
        self._count(len(data))
        self._changed.set()
        return piece

    def _count(self, by: int) -> None:
        self._waiting_bytes += by
        if self._waiting_bytes < _WAITING_BYTES:
            self._room.set()
        else:
            self._room.clear()
