"""Checks across processes: what another process does to a stream is seen here, whole."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from streamq.driver import (
    ChunkQueue,
    Entry,
    FencedError,
    Stored,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing._harness import BackendHarness

from ._base import Checks
from ._conditions import requires
from ._deadlines import within
from ._other_process import LIFE_RECORDS, TAKEOVER, life
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._sentences import ONE_STEP, TWO_STEPS
from ._verdicts import holds, same, same_records

_TAKEOVERS = 20
_STARVED = (
    "the takeover starves: it compares what each append of the writer before changes, and "
    "loses that race again and again (let its first entry compare the epoch only); or what one "
    "process stores does not reach another"
)
_OTHERS = (
    "what one process stores, or the wake-up, does not reach another: it stays in memory, or "
    "depends on a connection"
)


class ProcessChecks(Checks):
    """What another process does to a stream is seen here, whole."""

    group = "processes"

    @promises(
        "Capabilities.cross_process",
        "A stream is the same in every process of a host that has the same settings: entries, "
        "fence, deletion and wake-ups reach the others.",
    )
    @requires("cross_process")
    async def test_another_process_reads_ours_and_we_read_its(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A worker writes, a gateway reads: two processes that share nothing but the settings."""
        await queue.append(stream, entries(b"ours"))
        waiting: asyncio.Task[Sequence[Stored]] | None = None
        if queue.capabilities.replay:  # without it, this read would take the record away
            tail = (await self.read(queue, stream))[-1].position
            waiting = self.begin(self.read(queue, stream, tail, max_wait=4 * self.patience))
        async with self._another_process(backend, "reply", stream) as result:
            same(await result, b"ours", "the record that another process read", cause=_OTHERS)
            found = await (waiting or self.read(queue, stream))
            what = "what a read returned after another process acknowledged and appended"
            same_records(data_of(found), [b"theirs"], what, cause=_OTHERS)

    @promises(*ONE_STEP)
    @promises(
        "Capabilities.fenced",
        "After an entry of an epoch is stored, no entry of an older epoch is, whichever process, "
        "on whichever connection, appends it, however late",
    )
    @requires("cross_process", "fenced", "replay", "ordered")
    async def test_takeover_by_another_process_in_the_middle_of_appends_is_clean(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """Checking for a newer epoch and appending must be one step, even for two workers."""
        streams = [new_stream() for _ in range(_TAKEOVERS)]
        acknowledged: dict[StreamId, int] = {}
        taking_over = self._another_process(backend, "take over", streams, cause=_STARVED)
        async with taking_over as result:
            for stream in streams:
                with suppress(FencedError):
                    for index in itertools.count():
                        await queue.append(stream, [Entry(1, index, b"1-%d" % index)])
                        acknowledged[stream] = index + 1
                        await asyncio.sleep(0)  # The timeout needs a turn if appends never wait.
            await result
        for stream in streams:
            old = [b"1-%d" % index for index in range(acknowledged[stream])]
            await self.expect(queue, stream, old + data_of(TAKEOVER), cause=TWO_STEPS)

    @promises(
        "ChunkQueue.append",
        "When it returns, every entry can be read and described, in every process.",
    )
    @promises("ChunkQueue.read", "Return stored records after a position, oldest first")
    @promises("ChunkQueue.describe", "so ``last`` of 1 or more never gives none")
    @promises("ChunkQueue.streams", "A stream that is created or removed meanwhile may be left out")
    @requires("cross_process", "fenced", "replay", "ordered")
    async def test_stream_that_another_process_begins_again_and_again_is_never_mixed_up(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A user deletes and repeats a run on another machine, while a gateway reads the stream."""
        begins = self._another_process(backend, "begin again", stream, cause=_STARVED)
        async with begins as result:
            oldest = 1
            for turn in itertools.count():
                if result.done():
                    break
                wait = self.patience if turn % 2 else 0.0
                found = data_of(await self.read(queue, stream, max_wait=wait))
                holds(
                    _are_lives(found, oldest),
                    "the records of a stream that another process deletes and begins anew",
                    expected=f"those of one life after the other, none of them before {oldest}, "
                    "each from its first record",
                    seen=found,
                    cause="the answer is put together from steps between which another process has "
                    "changed the stream, or this one remembers what the other has deleted",
                )
                with suppress(StreamNotFoundError):
                    found = data_of((await queue.describe(stream, last=LIFE_RECORDS)).last)[::-1]
                    holds(
                        found and _are_lives(found, _life_of(found[-1])),
                        "the newest records of a stream that another process begins anew",
                        expected="at least one, of one life, from its first record",
                        seen=found,
                        cause="it exists for describe() before its records, or after them",
                    )
                oldest = max([oldest, *map(_life_of, found)])
                names = [info.stream async for info in queue.streams(stream.tenant)]
                holds(
                    names in ([], [stream]),
                    "a listing while another process deletes the stream and begins it anew",
                    expected=f"nothing, or {stream} once",
                    seen=names,
                )
                await queue.sweep()
                await asyncio.sleep(0)
            await result
        info = await queue.describe(stream, last=1)
        newest = life(_life_of(info.last[0].data))
        await self.expect(queue, stream, data_of(newest))

    @asynccontextmanager
    async def _another_process(
        self, backend: BackendHarness, task: str, subject: object, *, cause: str = _OTHERS
    ) -> AsyncIterator[asyncio.Task[bytes]]:
        """Start a task of ``_other_process``; yields its output, available when it has ended."""
        driver, settings = backend.driver, backend.settings()
        try:
            arguments = pickle.dumps((driver, settings, task, subject, self.patience))
        except (pickle.PicklingError, AttributeError, TypeError) as exc:
            pytest.fail(
                f"another process cannot import {driver.__qualname__} or unpickle its "
                f"settings: {exc}; define both at the top of a module",
                pytrace=False,
            )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamq.testing.checks._other_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

        async def result() -> bytes:
            path = json.dumps(["", *sys.path]).encode()
            printed, said = await process.communicate(path + b"\n" + arguments)
            holds(
                process.returncode == 0,
                "a process that opens a queue with the same driver and settings",
                expected="it reads and appends, and ends with exit code 0",
                seen=f"exit code {process.returncode}: {said.decode(errors='replace')[-2_000:]}",
                cause="the driver fails in a new process, or cannot be imported there",
            )
            return printed

        ended = asyncio.ensure_future(result())
        try:
            async with within(4 * self.patience, "the work of another process", cause=cause):
                yield ended
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.wait({ended})


def _life_of(data: bytes) -> int:
    """Return the epoch of a record of :func:`life`."""
    return int(data.partition(b"-")[0])


def _are_lives(found: Sequence[bytes], oldest: int) -> bool:
    """Whether records are those of one life after the other, each from its first record on."""
    lives = [list(group) for _, group in itertools.groupby(found, key=_life_of)]
    epochs = [_life_of(each[0]) for each in lives]
    return [oldest, *epochs] == sorted([oldest, *epochs]) and all(
        each == data_of(life(epoch))[: len(each)] for each, epoch in zip(lives, epochs, strict=True)
    )
