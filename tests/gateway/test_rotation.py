"""Tests how streams take turns at the writer of their connection."""

from __future__ import annotations

import asyncio

from streamq.gateway._many._rotation import Piece, PieceKind, Rotation

PIECE = bytes(65_536)


async def deliver(rotation: Rotation[int], number: int) -> None:
    """Hand over piece after piece, as a stream with much to catch up does."""
    while True:
        await rotation.room()
        await rotation.put(number, PIECE, PieceKind.EVENTS)


async def settled() -> None:
    """Let all tasks run that can."""
    for _ in range(1_000):
        await asyncio.sleep(0)


async def test_a_slow_client_costs_no_more_memory_with_more_streams() -> None:
    """A thousand streams that all have something to send must not fill memory."""
    rotation: Rotation[int] = Rotation()
    lines = [asyncio.create_task(deliver(rotation, number)) for number in range(300)]
    order: list[int] = []
    for _ in range(600):
        await settled() if len(order) % 100 == 0 else await asyncio.sleep(0)
        assert len(rotation) * len(PIECE) <= 2 * 262_144
        found: list[Piece[int]] = await rotation.take(10.0)
        order += [piece.source for piece in found if piece.source is not None]
    assert sorted(order[:300]) == list(range(300)) == sorted(order[300:600])  # each in its turn
    for line in lines:
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)
    assert not rotation


async def test_streams_that_leave_while_they_wait_keep_no_room() -> None:
    """The others must go on, whichever of those that wait is gone."""
    rotation: Rotation[int] = Rotation()
    lines = [asyncio.create_task(deliver(rotation, number)) for number in range(20)]
    await settled()
    waiting = lines[4:19]
    for line in waiting[::2]:
        line.cancel()
    await rotation.take(1.0)  # lets one of those that wait go on, which leaves at this moment
    for line in waiting[1::2]:
        line.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    seen: set[int | None] = set()
    async with asyncio.timeout(10):
        while not seen >= {0, 1, 2, 3, 19}:
            seen |= {piece.source for piece in await rotation.take(10.0)}
    for line in lines:
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)
