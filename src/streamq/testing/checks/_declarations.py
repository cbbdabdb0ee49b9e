"""Checks of declarations: they are usable and true, and undeclared capabilities are refused."""

from __future__ import annotations

import pytest

from streamq import CapabilityError, installed_drivers, load_driver
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    LatencyClass,
    QueueOptions,
    StreamId,
)
from streamq.testing._harness import LONG_TTL, BackendHarness, OpenQueue

from ._conditions import requires
from ._limits import LARGEST_TRIED_BYTES
from ._promises import promises
from ._records import entries
from ._streams import StreamChecks
from ._verdicts import holds, refuses, same

_SMALLEST_RECORD_BYTES = 4_096


class DeclarationChecks(StreamChecks):
    """Declared capabilities hold; undeclared ones are refused if required."""

    group = "capabilities"

    @promises(
        "Capabilities",
        "Fields that are ``bool`` can be required at open by name",
    )
    async def test_declared_capabilities_can_be_required(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An application states with `require=` which capabilities it needs."""
        declared = [name for name in Capabilities.flags() if getattr(queue.capabilities, name)]
        await (await self.reader(queue, stream, require=declared)).aclose()

    @promises(
        "Capabilities",
        "streamq refuses what is required and not declared: ``CapabilityError``, which names the "
        "backends that declare it.",
    )
    @promises(
        "Driver.capabilities",
        "What is not declared is refused where a caller requires it.",
    )
    async def test_undeclared_capabilities_are_refused_at_open(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Nothing is emulated silently: the error names what is missing and who offers it."""
        promised = {other: load_driver(other).capabilities for other in installed_drivers()}
        for name in Capabilities.flags():
            if getattr(queue.capabilities, name):
                continue
            able = [other for other in promised if getattr(promised[other], name)]
            what = f"a reader that requires {name!r}, which is not declared"
            with refuses(CapabilityError, what, match=name) as caught:
                await self.reader(queue, stream, require=[name])
            same(caught.value.backend, queue.backend, "the backend in the error")
            unnamed = [other for other in able if other not in str(caught.value)]
            same(unnamed, [], "backends that declare it and are not in the message")

    @promises(
        "Capabilities",
        "It refuses writers where attempts cannot be told apart (:attr:`writable`).",
    )
    async def test_writers_refuse_a_backend_that_cannot_tell_attempts_apart(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Without a fence or a total order, no attempt can know where to continue; the writer has
        to raise that before it stores anything."""
        if queue.capabilities.writable:
            await (await self.writer(queue, stream)).aclose()
            return
        with refuses(CapabilityError, "a writer of a backend that is not writable", match="fence"):
            await self.writer(queue, stream)
        await self.expect_missing(queue, stream, "a stream whose only writer was refused")

    @promises(
        "ChunkQueue.capabilities",
        "The capabilities of this queue: those of its driver, or fewer.",
    )
    @promises(
        "ChunkQueue.capabilities",
        "A queue declares less where its server is configured for less, never more.",
    )
    @promises(
        "Driver.capabilities",
        "The best that queues of this driver promise",
    )
    async def test_queue_declares_no_more_than_its_driver(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """Users choose a backend by the driver's table, before a queue is open."""
        promised, kept = backend.driver.capabilities, queue.capabilities
        cause = "the queue computes its declaration: begin with that of the driver, and take away"
        flags = Capabilities.flags()
        more = [name for name in flags if getattr(kept, name) > getattr(promised, name)]
        same(more, [], "capabilities that the queue declares, and its driver does not", cause=cause)
        holds(
            kept.max_record_bytes <= promised.max_record_bytes,
            "max_record_bytes of the queue",
            expected=f"at most the driver's {promised.max_record_bytes:,}",
            seen=f"{kept.max_record_bytes:,}",
            cause=cause,
        )
        classes = list(LatencyClass)
        holds(
            classes.index(kept.latency) >= classes.index(promised.latency),
            "latency of the queue",
            expected=f"the driver's {promised.latency.value!r}, or a slower class",
            seen=kept.latency.value,
            cause=cause,
        )

    @promises(
        "Capabilities",
        "Promises of a driver; a declared capability is mandatory for it.",
    )
    @promises(
        "Capabilities.max_record_bytes",
        "It is at least 4,096.",
    )
    @promises(
        "Capabilities.max_record_bytes",
        "It is at most 64 MiB, the most that the conformance kit can prove.",
    )
    @promises(
        "Capabilities.cross_host",
        "It includes ``cross_process``.",
    )
    @promises(
        "ChunkQueue.backend",
        "The driver's name, for messages: :attr:`Driver.name`. Mandatory.",
    )
    async def test_declaration_is_usable(self, queue: ChunkQueue, backend: BackendHarness) -> None:
        """Tables, requirements and the writer's packing are computed from the declaration."""
        driver = backend.driver
        for owner, capabilities in (("queue", queue.capabilities), ("driver", driver.capabilities)):
            for name in Capabilities.flags():
                value = getattr(capabilities, name)
                what = f"{name!r} of the {owner}"
                holds(isinstance(value, bool), what, expected="True or False", seen=value)
            holds(
                isinstance(capabilities.latency, LatencyClass),
                f"'latency' of the {owner}",
                expected="a LatencyClass",
                seen=capabilities.latency,
            )
            holds(
                _SMALLEST_RECORD_BYTES <= capabilities.max_record_bytes <= LARGEST_TRIED_BYTES,
                f"'max_record_bytes' of the {owner}",
                expected=f"at least {_SMALLEST_RECORD_BYTES:,}, for the record that opens an "
                f"attempt, and at most {LARGEST_TRIED_BYTES:,}, so that the kit can prove it",
                seen=capabilities.max_record_bytes,
            )
            holds(
                capabilities.cross_process or not capabilities.cross_host,
                f"'cross_host' and 'cross_process' of the {owner}",
                expected="cross_process as well, where cross_host is declared",
                seen="cross_host alone",
            )
        cause = "the attribute backend of the queue is missing, or another name"
        same(queue.backend, driver.name, "ChunkQueue.backend", cause=cause)

    @promises(
        "Driver.name",
        "one lower-case word",
    )
    @promises(
        "Driver.summary",
        "One line for tables. Mandatory.",
    )
    @promises(
        "Driver.settings_type",
        "The driver's settings class, with the environment prefix ``STREAMQ_<NAME>_``.",
    )
    @promises(
        "Driver.settings_type",
        "Its ``toml_table`` is the driver's name, and every field has a description.",
    )
    async def test_driver_describes_itself(self, backend: BackendHarness) -> None:
        """`streamq backends`, `streamq config` and error messages show this description."""
        driver = backend.driver
        holds(
            driver.name and driver.name == driver.name.strip().lower(),
            "Driver.name",
            expected="a name in lower case, without space around it",
            seen=driver.name,
        )
        holds(
            driver.summary and "\n" not in driver.summary,
            "Driver.summary",
            expected="one line",
            seen=driver.summary,
        )
        settings = driver.settings_type
        prefix = settings.model_config.get("env_prefix")
        expected = f"STREAMQ_{driver.name.upper()}_"
        same(prefix, expected, "env_prefix in model_config of Driver.settings_type")
        same(settings.toml_table, driver.name, "toml_table of Driver.settings_type")
        fields = settings.model_fields.items()
        bare = [name for name, field in fields if not field.description]
        same(bare, [], "settings without a description: Field(description=...)")
        holds(
            isinstance(backend.settings(), settings),
            "what settings() of the harness returns",
            expected=f"a {settings.__name__}",
            seen=backend.settings(),
        )

    @promises(
        "Driver.name",
        "The backend's name, equal to the name of the entry point",
    )
    async def test_driver_is_found_by_its_name(self, backend: BackendHarness) -> None:
        """A user has to set only `STREAMQ_BACKEND=<name>`."""
        driver = backend.driver
        if driver.name not in installed_drivers():
            pytest.skip(
                f"no installed distribution registers {driver.name!r} in streamq.drivers; "
                "a published driver has to"
            )
        registered = load_driver(driver.name)
        holds(
            registered is driver,
            f"the driver that is registered under the name {driver.name!r}",
            expected=driver.__qualname__,
            seen=registered.__qualname__,
            cause="another distribution has the name, or the entry point names another class",
        )

    @promises("Driver.examine", "Changes nothing.")
    @promises("Finding.remedy", "The next step if it is not ok or a warning; empty otherwise.")
    async def test_examination_changes_nothing_and_names_each_next_step(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """`streamq doctor` runs beside producers, and who runs it has to know what to do."""
        await queue.append(stream, entries(b"a"))
        findings = await backend.driver.examine(QueueOptions(ttl=LONG_TTL), backend.settings())
        wrong = [
            finding
            for finding in findings
            if not finding.subject
            or not finding.detail
            or bool(finding.remedy) == (finding.ok and not finding.is_warning)
        ]
        same(wrong, [], "findings without a next step, or with one although all is well")
        holds(findings, "examine()", expected="at least one finding", seen="none")
        listed = [info.stream async for info in queue.streams(stream.tenant)]
        same(listed, [stream], "the streams after an examination")
        await queue.append(stream, entries(b"b", first=1))
        await self.expect(queue, stream, [b"a", b"b"])

    @promises(
        "Capabilities.durable",
        "It survives the end of all clients as well.",
        cause="records are held by the process or the connection that appended them",
    )
    @requires("durable")
    async def test_records_outlive_the_connections(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Acknowledged records are still there after every client has been restarted."""
        await queue.append(stream, entries(b"a", b"b"))
        await queue.aclose()
        await self.expect(await open_queue(), stream, [b"a", b"b"])
