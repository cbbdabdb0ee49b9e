"""Processes that write and read streams and are killed in the middle, by ``kill -9``.

Usage: ``crash.py PREFIX SEED CHILDREN``; the backend comes from the environment. Every child tells
its parent each thing it has done by a byte, and the parent kills it after a number of them that the
seed decides: after none, in the middle of opening, between two chunks, in the middle of one.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import signal
import sys

from streamq import load_settings, open_queue, open_reader, open_writer
from streamq.driver import ChunkQueue

_WRITERS = 12
_READERS = 4
_MOST_STEPS = 120
_LARGE = 150_000  # several records, or most of one
_END = 0.03


async def child(prefix: str, rng: random.Random, told: int) -> None:
    """Write and read until killed."""
    settings = load_settings()
    async with open_queue(settings) as queue, asyncio.TaskGroup() as work:
        for i in range(_WRITERS):
            work.create_task(write(queue, f"{prefix}/{i}", rng, told))
        for i in range(_READERS):
            work.create_task(read(queue, f"{prefix}/{i}", told))
        work.create_task(read(queue, f"{prefix}/nobody-writes-this", told))


async def write(queue: ChunkQueue, name: str, rng: random.Random, told: int) -> None:
    round_ = 0
    while True:
        stream = f"{name}/{round_}" if round_ else name
        writer = await open_writer(stream, queue=queue)
        os.write(told, b"o")
        while rng.random() > _END:
            await writer.send_chunk(rng.randbytes(rng.choice((1, 10, 1_000, _LARGE))))
            await writer.flush()
            os.write(told, b"c")
        await writer.finish()
        await writer.aclose()
        os.write(told, b"s")
        round_ += 1


async def read(queue: ChunkQueue, name: str, told: int) -> None:
    async with open_reader(name, queue=queue, idle_seconds=60) as reader:
        async for _ in reader:
            os.write(told, b"r")


def start(prefix: str, seed: str) -> tuple[int, int]:
    """Fork a child; return its process id and where it tells what it has done."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    try:
        os.close(ours)
        asyncio.run(child(prefix, random.Random(seed), theirs))
    finally:
        os._exit(1)  # it should have been killed


def main(prefix: str, seed: str, children: int) -> int:
    rng = random.Random(seed)
    left: dict[int, int] = {}
    pids: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        for i in range(children):
            pid, pipe = start(f"{prefix}-{i}", f"{seed}-{i}")
            pids[pipe], left[pipe] = pid, rng.randrange(_MOST_STEPS)
            selector.register(pipe, selectors.EVENT_READ)
        died = 0
        while pids:
            for key, _ in selector.select():
                pipe = key.fd
                steps = os.read(pipe, 4_096)
                left[pipe] -= len(steps)
                if left[pipe] > 0 and steps:
                    continue
                os.kill(pids[pipe], signal.SIGKILL)
                _, status = os.waitpid(pids.pop(pipe), 0)
                died += os.WIFEXITED(status)
                selector.unregister(pipe)
                os.close(pipe)
    return died


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
