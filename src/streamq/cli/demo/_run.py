"""Runs the demo: worker and gateway, one workflow, and the reader of its stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkerDeploymentVersion
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

from streamq import (
    BackendUnavailableError,
    CapabilityError,
    Seal,
    SealState,
    StreamqError,
    __version__,
)
from streamq.cli._terminal import ending, show_error, show_json, stderr, stdout
from streamq.devserver import READY_POLL_SECONDS, TemporalDevServer
from streamq.driver import ChunkQueue, TemporalEndpoint, leaving_sdk
from streamq.gateway import serve
from streamq.gateway._app import build_app
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    StreamResult,
    StreamWorkflow,
    find_stream_name,
    subscribe,
)
from streamq.temporal._rpc import rpc_error

from ._activities import (
    stream_command,
    stream_completion,
    stream_file,
    stream_stdin,
    stream_text,
)
from ._measurements import Measurements, Stopwatch, measured
from ._plan import Plan
from ._view import View, make_view

_ACTIVITIES = (stream_text, stream_file, stream_command, stream_stdin, stream_completion)
_HEARTBEAT_SECONDS = 3.0
_THROTTLE = timedelta(seconds=0.5)
_CANCEL_SECONDS = 4.0
_RESULT_SECONDS = 10.0
_EXECUTION_TIMEOUT = timedelta(days=1)
_DEPLOYMENT = WorkerDeploymentConfig(
    version=WorkerDeploymentVersion(deployment_name="streamq-demo", build_id=__version__),
    use_worker_versioning=False,
)


async def run_demo(
    plan: Plan,
    *,
    queue: ChunkQueue,
    reading: ChunkQueue,
    server: TemporalDevServer | None,
    endpoint: TemporalEndpoint | None,
    outlives: bool,
) -> int:
    """Run the demo with an open backend.

    Args:
        plan: The plan.
        queue: Queue for the worker; stays open.
        reading: Queue for the readers; stays open.
        server: The Temporal server that was launched for the demo, if any.
        endpoint: The Temporal server to use instead.
        outlives: Whether the backend still exists after the demo.

    Returns:
        0 if the stream ended well, else 1.

    Raises:
        CapabilityError: The workflow would take the chunks away from the reader that shows them.
        StreamqError: A backend, Temporal or an address cannot be used.
    """
    settings = plan.settings
    is_shared = queue.capabilities.replay
    if plan.delivery != "none" and not is_shared:
        raise CapabilityError(
            f"backend {queue.backend!r} does not offer replay: records that the workflow reads are "
            "removed and cannot be shown; use --delivery none, or another backend",
            backend=queue.backend,
        )
    stopwatch = Stopwatch()
    view = make_view(stderr() if plan.as_json else stdout(), stopwatch)
    async with leaving_sdk(), AsyncExitStack() as stack:
        stack.enter_context(_quiet_logs(view))
        while server is not None and not server.is_ready():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(READY_POLL_SECONDS)
        endpoint = endpoint or settings.temporal_target.local(server.address if server else "")
        client = await _connect(endpoint)
        app = build_app(queue=reading, settings=settings)
        gateway = await stack.enter_async_context(
            serve(app, settings.gateway_host, plan.gateway_port)
        )
        worker = await stack.enter_async_context(_worker(client, plan, queue, stopwatch))
        stopwatch.start()
        handle = await _start(client, worker.task_queue, plan)
        name = await find_stream_name(handle)
        page = f"{gateway.url}/?stream={quote(name, safe='/')}" if is_shared else None
        view.say(
            (f"streamq demo: {plan.source.title}", "bold"),
            f" on backend {queue.backend}, Temporal at {endpoint.address}",
            " (started for the demo)" if server else "",
        )
        if page is None:
            view.say("no page: records that this reader has read are removed\n")
        else:
            view.say("open ", (page, "cyan underline"), "\n")
        seal = await _follow(handle, reading, plan, stopwatch, view)
        summary = {
            "backend": queue.backend,
            "delivery": plan.delivery,
            "state": seal.state.name,
            **asdict(stopwatch.results()),
            "history_events": await _history_events(handle),
            "stream": name,
            "page": page,
        }
        view.table(_rows(summary, stopwatch.results()))
        if outlives and is_shared and queue.capabilities.cross_process:
            view.say(f"Read it again: STREAMQ_BACKEND={queue.backend} streamq tail {name}")
        if seal.state is not SealState.END:
            show_error(f"the stream ended with {ending(seal)}")
        if plan.as_json:
            show_json(summary)
            sys.stdout.flush()
        if plan.keep and page is not None:
            view.say(f"The page stays at {page} until Ctrl-C.")
            with contextlib.suppress(asyncio.CancelledError):
                await gateway.wait()
    return 0 if seal.state is SealState.END else 1


def _worker(client: Client, plan: Plan, queue: ChunkQueue, stopwatch: Stopwatch) -> Worker:
    fail_after = plan.source.fail_after if plan.fail_once else None
    return Worker(
        client,
        task_queue=f"streamq-demo-{uuid.uuid4().hex[:8]}",
        activities=[measured(each, stopwatch, fail_after=fail_after) for each in _ACTIVITIES],
        plugins=[StreamqPlugin(queue=queue, settings=plan.settings)],
        max_heartbeat_throttle_interval=_THROTTLE,
        # Without it, the worker reads all code of this process to compute one, for about a second.
        deployment_config=_DEPLOYMENT,
    )


async def _connect(endpoint: TemporalEndpoint) -> Client:
    where = f"use Temporal namespace {endpoint.namespace!r} at {endpoint.address}"
    try:
        client = await endpoint.connect(runtime=Runtime(telemetry=TelemetryConfig(logging=None)))
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=endpoint.namespace)
        )
    except RPCError as exc:
        raise rpc_error(exc, where) from exc
    except StreamqError as exc:
        exc.add_note("--temporal-address '' runs a Temporal server for the demo only")
        raise
    return client


async def _start(
    client: Client, task_queue: str, plan: Plan
) -> WorkflowHandle[StreamWorkflow, StreamResult]:
    source = plan.source
    request = StreamRequest(
        activity=source.activity,
        args=list(source.args),
        delivery=plan.delivery,
        heartbeat_seconds=_HEARTBEAT_SECONDS,
        max_attempts=source.max_attempts,
        summary=False,  # the page shows the chunks; the history stays short
    )
    try:
        return await client.start_workflow(
            StreamWorkflow.run,
            request,
            id=f"demo-{uuid.uuid4().hex[:8]}",
            task_queue=task_queue,
            execution_timeout=_EXECUTION_TIMEOUT,
        )
    except RPCError as exc:
        raise rpc_error(exc, "start the workflow") from exc


async def _follow(
    handle: WorkflowHandle[Any, Any],
    reading: ChunkQueue,
    plan: Plan,
    stopwatch: Stopwatch,
    view: View,
) -> Seal:
    """Show the stream to its end and wait for the workflow, which is cancelled if this fails."""
    try:
        with view:
            async with subscribe(handle, queue=reading, settings=plan.settings) as events:
                async for event in events:
                    stopwatch.received(event)
                    view.show(event)
        await _await_end(handle)
    except BaseException:
        await _cancel(handle)
        raise
    assert events.seal is not None
    return events.seal


async def _await_end(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait for the end of the workflow; its outcome is already known from the seal."""
    try:
        async with asyncio.timeout(_RESULT_SECONDS):
            await handle.result()
    except WorkflowFailureError:
        pass
    except RPCError as exc:
        raise rpc_error(exc, "wait for the end of the workflow") from exc
    except TimeoutError as exc:
        raise BackendUnavailableError(
            f"the stream has ended, but workflow {handle.id!r} has not within "
            f"{_RESULT_SECONDS:g} s; check its worker and Temporal",
            backend="temporal",
        ) from exc


async def _history_events(handle: WorkflowHandle[Any, Any]) -> int:
    try:
        return (await handle.describe()).history_length
    except RPCError as exc:
        raise rpc_error(exc, "describe the workflow") from exc


async def _cancel(handle: WorkflowHandle[Any, Any]) -> None:
    """Cancel the workflow and wait briefly, while the activity ends its command and seals."""
    with contextlib.suppress(RPCError, WorkflowFailureError, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            await handle.cancel()
            await handle.result()


def _rows(summary: Mapping[str, Any], m: Measurements) -> list[tuple[str, str]]:
    through = "do not pass" if summary["delivery"] == "none" else "pass"
    rows = [
        ("backend", str(summary["backend"])),
        ("delivery", f"{summary['delivery']} (chunks {through} through the workflow)"),
        ("ended", str(summary["state"])),
        ("attempts", str(m.attempts)),
        ("chunks", f"{m.chunks} ({m.chunk_bytes} bytes)"),
    ]
    if m.chunks_per_second:
        rows.append(("rate", f"{m.chunks_per_second:.1f} chunks per second"))
    if m.first_chunk_seconds is not None:
        text = f"{_time(m.first_chunk_seconds)} after the workflow was started"
        if m.head_start_seconds is not None:
            when = "before" if m.head_start_seconds >= 0 else "after"
            text += f", {_time(abs(m.head_start_seconds))} {when} the activity ended"
        rows.append(("first chunk seen", text))
    if m.latency_seconds is not None and m.latency_p99_seconds is not None:
        median, slow = _time(m.latency_seconds), _time(m.latency_p99_seconds)
        rows.append(
            ("send to reader", f"{median} median, {slow} 99th percentile; both in this process")
        )
    rows.append(("workflow history", f"{summary['history_events']} events"))
    return rows


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


class _Notices(logging.Handler):
    """Shows log records as lines of the view."""

    def __init__(self, view: View) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.say(f"-- {record.getMessage()}", style="dim")


@contextlib.contextmanager
def _quiet_logs(view: View) -> Iterator[None]:
    """Show streamq's warnings; hide those of libraries, which repeat what readers see."""
    ours, everything = logging.getLogger("streamq"), logging.getLogger()
    notices, nothing = _Notices(view), logging.NullHandler()
    ours.addHandler(notices)
    everything.addHandler(nothing)
    try:
        yield
    finally:
        ours.removeHandler(notices)
        everything.removeHandler(nothing)
