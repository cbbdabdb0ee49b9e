"""Doorbells: a lost one costs time only, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from streamq._sqlite import _listening as listening
from streamq._sqlite._doorbells import Doorbells
from streamq.driver import Entry
from streamq.testing import OpenQueue

from .sqlite_database import STREAM, blocked_read, exists


async def test_lost_wake_up_costs_time_but_no_data(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wake-up is only a hint: where the system refuses it, readers poll."""
    monkeypatch.setattr(Doorbells, "ring", lambda self: None)
    monkeypatch.setattr(listening, "_POLL_SECONDS", 0.05)
    queue, other = await open_queue(), await open_queue()
    read = await blocked_read(queue)
    await other.append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]


async def test_reader_polls_where_it_cannot_have_a_doorbell(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox may forbid sockets; streaming is slower there, and goes on."""
    monkeypatch.setattr(Doorbells, "install", lambda self: None)
    queue, other = await open_queue(), await open_queue()
    read = await blocked_read(queue)
    await other.append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]


async def test_doorbells_of_dead_processes_are_removed(path: Path, open_queue: OpenQueue) -> None:
    """Killed readers leave sockets behind, which would slow every append for ever."""
    queue = await open_queue()
    read = await blocked_read(queue)
    directory = Doorbells(path).directory
    dead = directory / "dead.bell"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(os.fspath(dead))
    assert dead.exists()
    await queue.append(STREAM, [Entry(1, 0, b"x")])
    assert await read == [b"x"]
    assert not dead.exists()


async def test_closing_removes_the_doorbell(path: Path, open_queue: OpenQueue) -> None:
    """A process removes every file that it puts next to the database."""
    queue = await open_queue()
    read = await blocked_read(queue)
    directory = Doorbells(path).directory
    assert len(os.listdir(directory)) == 1
    await queue.aclose()
    await asyncio.gather(read, return_exceptions=True)
    assert not exists(directory)


async def test_doorbell_is_removed_when_no_read_blocks(
    path: Path, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has polled once must not be woken by every later append of the machine."""
    monkeypatch.setattr(listening, "_KEEP_BELL_SECONDS", 0.02)
    queue = await open_queue()
    read = await blocked_read(queue)
    read.cancel()
    async with asyncio.timeout(20):
        while exists(Doorbells(path).directory):  # noqa: ASYNC110 - files have no event
            await asyncio.sleep(0.01)
    read = await blocked_read(queue)
    await (await open_queue()).append(STREAM, [Entry(1, 0, b"x")])
    async with asyncio.timeout(20):
        assert await read == [b"x"]
