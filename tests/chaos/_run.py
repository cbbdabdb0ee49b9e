"""Runs servers, processes, streams and faults; then ends the faults and waits for all endings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from streamq import load_settings
from streamq.devserver import TemporalDevServer, free_port
from streamq.temporal import STREAM_WORKFLOW, StreamRequest, stream_name
from streamq.testing import FaultProxy

from ._backend import Backend
from ._backends import backend_type, faults_of
from ._checker import Verdict, check
from ._consumer import POLL_READER, Consumer
from ._faults import Saboteur
from ._ledger import Ledger, LedgerTail
from ._processes import Fleet, Victim
from ._records import read_records
from ._schedule import (
    GATEWAY,
    HEARTBEAT_SECONDS,
    HTTP_LINK,
    READER_LINK,
    READERS,
    TEMPORAL_LINKS,
    WORKER_LINK,
    WORKERS,
    make_schedule,
)
from ._setup import TASK_QUEUE, Setup
from ._worker import arguments_of
from ._workload import make_plan

LATE_READER = "late-1"
WORKFLOW_SECONDS = 150.0
"""How long no workflow may complete after the last fault, until the rest counts as hung. Temporal
waits for up to 100 s before the next attempt of an activity that has failed often."""

READER_SECONDS = 30.0
"""How long readers may read nothing, after the last workflow, until they count as hung. It is not
the time for all of it: a machine that is busy with other things reads slowly."""

_LONGEST_SECONDS = 900.0

_POLL_SECONDS = 0.1
_CRASH_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Progress:
    """The progress of a run.

    Attributes:
        phase: Its phase, in a word.
        seconds: Seconds since the first fault.
        faults, streams, completed, ended, events, crashes: Counters; ``ended`` counts endings read
            by all readers together, ``crashes`` processes that ended by themselves.
    """

    phase: str = "starting"
    seconds: float = 0.0
    faults: int = 0
    streams: int = 0
    completed: int = 0
    ended: int = 0
    events: int = 0
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run.

    Attributes:
        faults: Number of faults that happened.
        verdict: Verdict of the checker.
        crashes: How often a process of the run ended by itself, and was started again.
        streams: Number of streams.
    """

    faults: int
    verdict: Verdict
    crashes: int
    streams: int


class Run:
    """A chaos run.

    Args:
        backend: Name of the backend that is broken.
        seed: Determines faults and streams.
        seconds: Duration of the faults.
        directory: Directory of ledgers and logs; must exist.
        show: Called about ten times a second.
    """

    def __init__(
        self,
        backend: str,
        seed: int,
        seconds: float,
        directory: Path,
        show: Callable[[Progress], None],
    ) -> None:
        self._kind = backend_type(backend)
        self._schedule = make_schedule(seed, seconds, faults_of(backend))
        self._seed = seed
        self._seconds = seconds
        self._directory = directory
        self._show = show
        self._progress = Progress()
        self._outcomes: dict[str, str] = {}
        self._readers: dict[str, LedgerTail] = {}
        self._ended: dict[str, int] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self) -> Result:
        """Run and judge. Cancellation stops everything that was started.

        Raises:
            StreamqError: A server does not start.
        """
        async with AsyncExitStack() as stack:
            temporal = TemporalDevServer()
            await asyncio.to_thread(temporal.start)
            stack.callback(temporal.stop)
            backend = self._kind(self._directory)
            stack.callback(backend.stop)
            await backend.start()
            gateway_port = free_port()
            ports = {HTTP_LINK: gateway_port}
            ports |= {name: backend.port_of(name) for name in backend.links}
            ports |= dict.fromkeys(TEMPORAL_LINKS.values(), temporal.port)
            links = {
                name: await stack.enter_async_context(
                    FaultProxy("127.0.0.1", port, listen_port=backend.listen_port_of(name))
                )
                for name, port in ports.items()
            }
            setup = Setup(
                directory=self._directory,
                temporal_address=temporal.address,
                worker_temporal_addresses={
                    worker: links[link].address for worker, link in TEMPORAL_LINKS.items()
                },
                worker_settings=self._settings(backend, WORKER_LINK, links),
                reader_settings=self._settings(backend, READER_LINK, links),
                credentials_file=backend.credentials_file,
                gateway_port=gateway_port,
                http_port=links[HTTP_LINK].port,
            )
            setup.attempts_directory.mkdir()
            fleet = stack.enter_context(Fleet())
            streams = stack.enter_context(Ledger(setup.streams_path))
            client = await Client.connect(temporal.address)
            outside = (*READERS, GATEWAY) if backend.has_fan_out else ()
            for name in (*WORKERS, *outside):
                await asyncio.to_thread(fleet.add, name, setup)
                if name in READERS:
                    self._watch(name, setup)
            victims: dict[str, Victim] = {**fleet.children, **backend.victims}
            faults = stack.enter_context(Ledger(self._directory / "faults.jsonl"))
            saboteur = Saboteur(victims, links, backend, faults)
            async with asyncio.TaskGroup() as tasks:
                supervision = tasks.create_task(self._supervise(fleet, saboteur))
                await self._inject_faults(saboteur, client, setup, streams)
                await self._settle(fleet, setup)
                supervision.cancel()
            readers = (*READERS, LATE_READER) if backend.has_fan_out else (POLL_READER,)
        records = read_records(
            setup,
            readers,
            self._outcomes,
            is_fenced=backend.is_fenced,
            agrees_on_numbers=backend.agrees_on_numbers,
        )
        verdict = check(records, readers)
        return Result(saboteur.done, verdict, self._progress.crashes, self._progress.streams)

    @staticmethod
    def _settings(backend: Backend, side: str, links: Mapping[str, FaultProxy]) -> dict[str, str]:
        addresses = {name: link.address for name, link in links.items()}
        address = backend.address_of(side, addresses)
        return {"STREAMQ_BACKEND": backend.name, **backend.settings(address)}

    async def _inject_faults(
        self, saboteur: Saboteur, client: Client, setup: Setup, streams: Ledger
    ) -> None:
        self._progress.phase = "breaking"
        # Both are awaited, so that every stream that is started is recorded.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._start_streams(client, setup, streams))
            tasks.create_task(saboteur.run(self._schedule))

    async def _start_streams(self, client: Client, setup: Setup, streams: Ledger) -> None:
        clock, kind = asyncio.get_running_loop().time, self._kind
        began = clock()
        tenant = load_settings().tenant
        for number in range(math.ceil(self._seconds * kind.streams_per_second)):
            await asyncio.sleep(max(began + number / kind.streams_per_second - clock(), 0.0))
            plan = make_plan(self._seed, number, kind.largest_chunk_bytes, kind.policies)
            arguments = arguments_of(plan)
            handle = await client.start_workflow(
                STREAM_WORKFLOW if kind.has_fan_out else Consumer.__name__,
                StreamRequest(plan.policy, arguments, heartbeat_seconds=HEARTBEAT_SECONDS)
                if kind.has_fan_out
                else arguments[0],
                id=plan.name,
                task_queue=TASK_QUEUE,
                # The time after which the death of a worker within a workflow task is noticed.
                task_timeout=timedelta(seconds=1),
            )
            run_id = str(handle.first_execution_run_id)
            name = f"{tenant}/{stream_name(handle.id, run_id)}"
            streams.write(t="stream", s=name, run=run_id, plan=asdict(plan))
            self._progress.streams += 1
            waiting = asyncio.create_task(self._wait_completed(name, handle, setup))
            self._waiting.add(waiting)

    async def _wait_completed(
        self, name: str, handle: WorkflowHandle[Any, Any], setup: Setup
    ) -> None:
        try:
            result = await handle.result()
        except WorkflowFailureError as exc:
            self._outcomes[name] = f"FAILED: {exc.cause}: {getattr(exc.cause, 'cause', None)}"
        except RPCError as exc:
            self._outcomes[name] = f"UNKNOWN: {exc}"
        else:
            self._outcomes[name] = "COMPLETED"
            if not self._kind.has_fan_out:
                with Ledger(setup.reader_path(POLL_READER)) as log:
                    for fields in result:
                        log.write(s=name, **fields)
        self._progress.completed += 1

    async def _settle(self, fleet: Fleet, setup: Setup) -> None:
        """Wait until all streams have ended; the checker finds those that do not end in time."""
        self._progress.phase, streams = "settling", self._progress.streams
        progress = self._progress
        await self._until(lambda: progress.completed == streams, WORKFLOW_SECONDS)
        if self._kind.has_fan_out:
            await self._until(lambda: self._have_ended(READERS), READER_SECONDS)
            self._progress.phase = "reading late"
            await asyncio.to_thread(fleet.add, LATE_READER, setup)
            self._watch(LATE_READER, setup)
            await self._until(lambda: self._have_ended((LATE_READER,)), READER_SECONDS)
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    def _have_ended(self, readers: tuple[str, ...]) -> bool:
        return all(self._ended[reader] == self._progress.streams for reader in readers)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition, as long as something happens within so many seconds."""
        clock, progress = asyncio.get_running_loop().time, self._progress
        end = clock() + _LONGEST_SECONDS
        done, since = (-1, -1), clock()
        while not condition() and clock() < min(since + seconds, end):
            if done != (progress.completed, progress.events):
                done, since = (progress.completed, progress.events), clock()
            await asyncio.sleep(_POLL_SECONDS)

    def _watch(self, reader: str, setup: Setup) -> None:
        self._readers[reader] = LedgerTail(setup.reader_path(reader))
        self._ended[reader] = 0

    async def _supervise(self, fleet: Fleet, saboteur: Saboteur) -> None:
        """Follow the readers' logs, and restart processes that have ended by themselves."""
        progress, clock = self._progress, asyncio.get_running_loop().time
        began = clock()
        while True:
            for reader, tail in self._readers.items():
                for line in tail.read():
                    progress.events += 1
                    self._ended[reader] += line["k"] in ("end", "error")
            for child in list(fleet.children.values()):
                if child.has_crashed:
                    progress.crashes += 1
                    await asyncio.sleep(_CRASH_PAUSE_SECONDS)
                    if child.has_crashed:
                        await asyncio.to_thread(child.start)
            progress.ended = sum(self._ended.values())
            progress.faults, progress.seconds = saboteur.done, clock() - began
            self._show(progress)
            await asyncio.sleep(_POLL_SECONDS)
