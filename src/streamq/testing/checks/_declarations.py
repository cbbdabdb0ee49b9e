"""Checks of declarations: they are usable and true, and undeclared capabilities are refused."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from streamq import CapabilityError, installed_drivers, load_driver
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Entry,
    FencedError,
    LatencyClass,
    QueueOptions,
    StreamId,
)
from streamq.testing._harness import LONG_TTL, BackendHarness, OpenQueue

from ._conditions import requires
from ._other_process import TAKEOVER
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._streams import StreamChecks

_SMALLEST_RECORD_BYTES = 4_096
_TAKEOVERS = 20


class DeclarationChecks(StreamChecks):
    """Declared capabilities hold; undeclared ones are refused if required."""

    group = "capabilities"

    async def test_declared_capabilities_can_be_required(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An application states with `require=` which capabilities it needs."""
        declared = [name for name in Capabilities.flags() if getattr(queue.capabilities, name)]
        await (await self.reader(queue, stream, require=declared)).aclose()

    async def test_undeclared_capabilities_are_refused_at_open(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Nothing is emulated silently: the error names what is missing and who offers it."""
        promised = {other: load_driver(other).capabilities for other in installed_drivers()}
        for name in Capabilities.flags():
            if getattr(queue.capabilities, name):
                continue
            able = [other for other in promised if getattr(promised[other], name)]
            with pytest.raises(CapabilityError, match=name) as caught:
                await self.reader(queue, stream, require=[name])
            assert caught.value.backend == queue.backend
            for other in able:
                assert other in str(caught.value)

    async def test_writers_refuse_a_backend_that_cannot_tell_attempts_apart(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Without a fence or a total order, no attempt can know where to continue; the writer has
        to raise that before it stores anything."""
        if queue.capabilities.writable:
            await (await self.writer(queue, stream)).aclose()
            return
        with pytest.raises(CapabilityError, match="fence"):
            await self.writer(queue, stream)
        assert await self.is_gone(queue, stream)

    async def test_queue_declares_no_more_than_its_driver(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """Users choose a backend by the driver's table, before a queue is open."""
        promised, kept = backend.driver.capabilities, queue.capabilities
        assert [name for name in Capabilities.flags() if getattr(kept, name)] == [
            name for name in Capabilities.flags() if getattr(kept, name) and getattr(promised, name)
        ]
        assert kept.max_record_bytes <= promised.max_record_bytes
        classes = list(LatencyClass)
        assert classes.index(kept.latency) >= classes.index(promised.latency)

    async def test_declaration_is_usable(self, queue: ChunkQueue, backend: BackendHarness) -> None:
        """Tables, requirements and the writer's packing are computed from the declaration."""
        driver = backend.driver
        for capabilities in (queue.capabilities, driver.capabilities):
            for field in dataclasses.fields(Capabilities):
                if field.name in Capabilities.flags():
                    assert isinstance(getattr(capabilities, field.name), bool)
            assert isinstance(capabilities.latency, LatencyClass)
            assert capabilities.max_record_bytes >= _SMALLEST_RECORD_BYTES
            assert capabilities.cross_process or not capabilities.cross_host
        assert queue.backend == driver.name

    async def test_driver_describes_itself(self, backend: BackendHarness) -> None:
        """`streamq backends`, `streamq config` and error messages show this description."""
        driver = backend.driver
        assert driver.name
        assert driver.name == driver.name.strip().lower()
        assert driver.summary
        assert "\n" not in driver.summary
        settings = driver.settings_type
        assert settings.model_config.get("env_prefix") == f"STREAMQ_{driver.name.upper()}_"
        assert settings.toml_table == driver.name
        for name, field in settings.model_fields.items():
            assert field.description, f"setting {name!r} is not described"
        assert isinstance(backend.settings(), settings)

    async def test_driver_is_found_by_its_name(self, backend: BackendHarness) -> None:
        """A user has to set only `STREAMQ_BACKEND=<name>`."""
        driver = backend.driver
        if driver.name not in installed_drivers():
            pytest.skip(
                f"no installed distribution registers {driver.name!r} in streamq.drivers; "
                "a published driver has to"
            )
        registered = load_driver(driver.name)
        assert registered is driver, f"the name {driver.name!r} belongs to another driver"

    @promises("Driver.examine", "Changes nothing.")
    @promises("Finding.remedy", "The next step if it is not ok or a warning; empty otherwise.")
    async def test_examination_changes_nothing_and_names_each_next_step(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """`streamq doctor` runs beside producers, and who runs it has to know what to do."""
        await queue.append(stream, entries(b"a"))
        findings = await backend.driver.examine(QueueOptions(ttl=LONG_TTL), backend.settings())
        assert findings, "an examination has at least one finding"
        for finding in findings:
            assert finding.subject
            assert finding.detail
            is_good = finding.ok and not finding.is_warning
            assert bool(finding.remedy) != is_good, f"{finding} has no next step, or one too many"
        assert [info.stream async for info in queue.streams(stream.tenant)] == [stream]
        await queue.append(stream, entries(b"b", first=1))
        await self.expect(queue, stream, [b"a", b"b"])

    @requires("durable")
    async def test_records_outlive_the_connections(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Acknowledged records are still there after every client has been restarted."""
        await queue.append(stream, entries(b"a", b"b"))
        await queue.aclose()
        await self.expect(await open_queue(), stream, [b"a", b"b"])

    @requires("cross_process", "replay")
    async def test_another_process_reads_ours_and_we_read_its(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """A worker writes, a gateway reads: two processes that share nothing but the settings."""
        await queue.append(stream, entries(b"ours"))
        tail = (await self.read(queue, stream))[-1].position
        waiting = self.begin(self.read(queue, stream, tail, max_wait=4 * self.patience))
        try:
            async with self._another_process(backend, "reply", stream) as result:
                assert await result == b"ours"
                assert data_of(await waiting) == [b"theirs"]
        finally:
            waiting.cancel()

    @requires("cross_process", "fenced", "replay", "ordered")
    async def test_takeover_by_another_process_in_the_middle_of_appends_is_clean(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """Checking for a newer epoch and appending must be one step, even for two workers."""
        streams = [new_stream() for _ in range(_TAKEOVERS)]
        acknowledged: dict[StreamId, int] = {}
        async with self._another_process(backend, "take_over", streams) as result:
            for stream in streams:
                with suppress(FencedError):
                    for index in itertools.count():
                        await queue.append(stream, [Entry(1, index, b"1-%d" % index)])
                        acknowledged[stream] = index + 1
                        await asyncio.sleep(0)  # The timeout needs a turn if appends never wait.
            await result
        for stream in streams:
            old = [b"1-%d" % index for index in range(acknowledged[stream])]
            await self.expect(queue, stream, old + data_of(TAKEOVER))

    @asynccontextmanager
    async def _another_process(
        self, backend: BackendHarness, task: str, subject: object
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
            assert process.returncode == 0, said.decode(errors="replace")
            return printed

        ended = asyncio.ensure_future(result())
        try:
            async with asyncio.timeout(4 * self.patience):
                yield ended
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.wait({ended})
