"""Starts processes that write and read streams, and kills them at random moments by ``kill -9``.

Usage: ``crash.py PREFIX SEED CHILDREN``; the backend comes from the environment. Every child sends
its parent one byte for each step. The seed determines the number of steps after which the parent
kills it: before the first, while it opens, between two chunks, within a chunk.
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
_MAX_STEPS = 120
_LARGE = 150_000  # several records, or most of one
_END = 0.03


async def child(prefix: str, rng: random.Random, steps: int) -> None:
    """Write and read until killed."""
    settings = load_settings()
    async with open_queue(settings) as queue, asyncio.TaskGroup() as work:
        for i in range(_WRITERS):
            work.create_task(write(queue, f"{prefix}/{i}", rng, steps))
        for i in range(_READERS):
            work.create_task(read(queue, f"{prefix}/{i}", steps))
        work.create_task(read(queue, f"{prefix}/never-written", steps))


async def write(queue: ChunkQueue, name: str, rng: random.Random, steps: int) -> None:
    round_ = 0
    while True:
        stream = f"{name}/{round_}" if round_ else name
        writer = await open_writer(stream, queue=queue)
        os.write(steps, b"o")
        while rng.random() > _END:
            await writer.send_chunk(rng.randbytes(rng.choice((1, 10, 1_000, _LARGE))))
            await writer.flush()
            os.write(steps, b"c")
        await writer.finish()
        await writer.aclose()
        os.write(steps, b"s")
        round_ += 1


async def read(queue: ChunkQueue, name: str, steps: int) -> None:
    async with open_reader(name, queue=queue, idle_seconds=60) as reader:
        async for _ in reader:
            os.write(steps, b"r")


def start(prefix: str, seed: str) -> tuple[int, int]:
    """Fork a child; return its process id and the pipe on which it reports its steps."""
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
            pids[pipe], left[pipe] = pid, rng.randrange(_MAX_STEPS)
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
