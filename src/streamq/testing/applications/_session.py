"""Runs the attempts of one recorded activity, one after the other, on one stream.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, get_args

from temporalio.api.common.v1 import Payload
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq._settings import Settings, load_settings
from streamq.opening._open import open_writer, stream_id
from streamq.temporal._interceptor import StreamqInterceptor
from streamq.temporal._names import stream_name
from streamq.temporal._serializer import conversion
from streamq.temporal.activities._epoch import attempt_epoch
from streamq.temporal.producer._signature import MAIN, StreamingSpec, annotations_of, spec_of
from streamq.testing._faulty_queue import FaultyQueue
from streamq.writing._blocking import BlockingStreamWriter
from streamq.writing._policies import OnRetry
from streamq.writing._writer import StreamWriter

from ._activity_run import AttemptRun, AttemptTask
from ._no_server import NoServer, client_without_server
from ._outcome import outcome_of
from ._plan import AttemptPlan, planned
from ._recorded import Recorded, RecordedAttempt, RecordedStream
from ._recording_writer import RecordingWriter
from ._script import CancelReason, Faults, Script, scripted_error
from ._storage import chosen_converter, memory_queue, stored_events, write_earlier

_MINUTE = timedelta(minutes=1)
_PAUSE = timedelta(seconds=1)
_THREADS = 8


@dataclass
class _Ended:
    """One attempt that has ended."""

    run: AttemptRun
    writers: dict[str, RecordingWriter[Any]]


class Session:
    """Runs a recorded activity.

    Args:
        activity: The decorated function.
        arguments: Its arguments.
        options: Those of :func:`record`.
    """

    def __init__(
        self, activity: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        self._spec = checked_spec(activity)
        self._activity = activity
        self._arguments = arguments
        self._options = options
        self._plans = planned(options)
        self._settings: Settings = options.get("settings") or load_settings()
        self._server = NoServer()
        given = options.get("client")
        converter = chosen_converter(options.get("data_converter"), given, self._settings)
        self._client = given or client_without_server(self._server, converter)
        self._converter = converter
        self._workflow_id: str = options.get("workflow_id") or f"recorded-{uuid.uuid4()}"
        self._run_id = str(uuid.uuid4())
        self._scheduled = datetime.now(UTC) - timedelta(hours=1)
        self._heartbeat: Sequence[Payload] = ()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="recorded-activity")

    @cached_property
    def _streams(self) -> dict[str, StreamId]:
        """The activity's streams, by the writer's parameter; the main one first."""
        topics = self._spec.topics(self._options.get("topic"))
        return {
            name: stream_id(stream_name(self._workflow_id, self._run_id, topic), self._settings)
            for name, topic in topics.items()
        }

    @cached_property
    def _chunk_types(self) -> dict[str, Any]:
        hints = annotations_of(getattr(self._activity, "__wrapped__", self._activity))
        types = {name: (get_args(hints.get(name)) or (None,))[0] for name in self._streams}
        found = {name: each if isinstance(each, type) else None for name, each in types.items()}
        return found | ({MAIN: self._spec.chunk_type} if MAIN in found else {})

    @property
    def _main(self) -> str:
        return next(iter(self._streams))

    async def run(self) -> Recorded[Any, Any]:
        """Run every attempt; return what was recorded."""
        queue = self._options.get("queue")
        used = queue or await memory_queue(self._settings)
        faulty = used if isinstance(used, FaultyQueue) else FaultyQueue(used)
        self._faults = Faults(faulty, self._options.get("faults") or {})
        try:
            attempts = await self._run_all()
            streams = {name: await self._stored(name) for name in self._streams}
        finally:
            self._executor.shutdown()
            if queue is None:
                await used.aclose()
        late = [number for number in self._faults.by_chunk if number > self._faults.count]
        if late:
            raise AssertionError(
                f"the activity sent {self._faults.count} chunks, so that the faults of {late} did "
                "not happen"
            )
        main = streams[self._main]
        return Recorded(main.stream, main.events, attempts, streams)

    async def _run_all(self) -> list[RecordedAttempt[Any, Any]]:
        attempts: list[RecordedAttempt[Any, Any]] = []
        for plan in self._plans:
            if not plan.runs:
                await self._write(plan)
                continue
            if attempts and not attempts[-1].is_retried:
                raise _no_next(attempts[-1], plan.number)
            ended = await self._run_one(plan)
            self._heartbeat = ended.run.last_heartbeat
            attempts.append(
                await outcome_of(ended.run, self._converter, ended.writers.get(self._main))
            )
            self._check_script(ended, attempts[-1])
            if plan.loses_completion:
                attempts[-1] = replace(attempts[-1], is_retried=True)
        return attempts

    async def _run_one(self, plan: AttemptPlan) -> _Ended:
        details = self._options.get("heartbeat_details") if plan.is_first else None
        if details:
            self._heartbeat = await self._converter.encode(details)
        interceptor = StreamqInterceptor(lambda: (self._faults.queue, self._settings), self._client)
        writers: dict[str, RecordingWriter[Any]] = {}
        run = AttemptRun(
            self._task(plan),
            self._client,
            [*self._options.get("interceptors", ()), interceptor],
            self._executor,
            lambda found: self._watched(found, writers, run.script),
        )
        run.sent = lambda: writers[self._main].sends if writers else 0
        run.script = Script(
            asyncio.get_running_loop(),
            self._faults,
            plan.fail_after,
            self._options.get("fail_with") or scripted_error(plan.fail_after),
            plan.cancel_after,
            lambda: self._cancel(run, plan, writers),
            plan.cancel_reason is not CancelReason.SUPERSEDED,
        )
        await run.run()
        return _Ended(run, writers)

    def _task(self, plan: AttemptPlan) -> AttemptTask:
        options = self._options
        return AttemptTask(
            function=self._activity,
            arguments=self._arguments,
            number=plan.number,
            workflow_id=self._workflow_id,
            run_id=self._run_id,
            topic=options.get("topic"),
            scheduled=self._scheduled,
            started=self._started(plan),
            retry_policy=options.get("retry_policy") or RetryPolicy(),
            start_to_close_timeout=options.get("start_to_close_timeout") or _MINUTE,
            schedule_to_close_timeout=options.get("schedule_to_close_timeout"),
            heartbeat_timeout=options.get("heartbeat_timeout", _MINUTE),
            heartbeat_details=self._heartbeat,
        )

    def _started(self, plan: AttemptPlan) -> datetime:
        return self._scheduled + (plan.number - 1) * _PAUSE

    def _watched(
        self,
        found: Mapping[str, Any],
        writers: dict[str, RecordingWriter[Any]],
        script: Script | None,
    ) -> dict[str, Any]:
        """Return the writers for the function, of the kind that it needs."""
        given: dict[str, Any] = {}
        for name, each in found.items():
            writer = each._writer if isinstance(each, BlockingStreamWriter) else each
            serializer, _ = conversion(
                self._converter,
                self._streams[name].name,
                self._client.namespace,
                self._chunk_types[name],
            )
            counted = script if name == self._main else None
            writers[name] = RecordingWriter(writer, serializer, counted)
            given[name] = writers[name]
            if isinstance(each, BlockingStreamWriter):
                each._writer = writers[name]
                given[name] = each
        return given

    def _cancel(
        self, run: AttemptRun, plan: AttemptPlan, writers: Mapping[str, RecordingWriter[Any]]
    ) -> Coroutine[Any, Any, None] | None:
        if plan.cancel_reason is CancelReason.SUPERSEDED:
            return self._supersede(plan, writers)
        self._server.has_ended = plan.cancel_reason is CancelReason.WORKFLOW_ENDED
        run.cancel(plan.cancel_reason)
        return None

    async def _supersede(
        self, plan: AttemptPlan, writers: Mapping[str, RecordingWriter[Any]]
    ) -> None:
        """Open every stream as a newer attempt does; readers see nothing of that."""
        for writer in writers.values():
            with contextlib.suppress(StreamqError):
                await writer.flush()  # what was sent before counts
        newer = replace(plan, number=plan.number + 1)
        for name in self._streams:
            newest = await self._opened(name, newer, self._started(plan), OnRetry.RESUME)
            await newest.aclose()

    async def _write(self, plan: AttemptPlan) -> None:
        """Write the streams of an earlier attempt that is not run."""
        for name in self._streams:
            values = plan.values if name == self._main else ()
            opened = partial(self._opened, name, plan, self._started(plan), self._spec.on_retry)
            await write_earlier(opened, values, ends=plan.loses_completion)

    async def _opened(
        self, name: str, plan: AttemptPlan, started: datetime, on_retry: OnRetry
    ) -> StreamWriter[Any]:
        stream = self._streams[name]
        serializer, codec = conversion(self._converter, stream.name, self._client.namespace)
        info = replace(
            ActivityEnvironment.default_info(),
            current_attempt_scheduled_time=started,
            attempt=plan.number,
        )
        return await open_writer(
            stream,
            queue=self._faults.queue.inner,
            settings=self._settings,
            epoch=attempt_epoch(info),
            on_retry=on_retry,
            producer=f"{self._run_id}/1",
            serializer=serializer,
            codec=codec,
        )

    async def _stored(self, name: str) -> RecordedStream[Any]:
        events = await stored_events(
            self._streams[name],
            queue=self._faults.queue,
            settings=self._settings,
            converter=self._converter,
            namespace=self._client.namespace,
            value_type=self._chunk_types[name],
        )
        return RecordedStream(self._streams[name], events)

    def _check_script(self, ended: _Ended, attempt: RecordedAttempt[Any, Any]) -> None:
        script = ended.run.script
        assert script is not None
        is_before = attempt.number < next(each.number for each in self._plans if each.is_first)
        for name, wanted, happened in (
            ("position" if is_before else "fail_after", script.fail_after, script.has_failed),
            ("cancel_after", script.cancel_after, script.has_cancelled),
        ):
            if wanted is not None and not happened:
                raise AssertionError(
                    f"attempt {attempt.number} sent {ended.run.sent()} chunks and "
                    f"{_ending(attempt)}: {name}={wanted} did not happen"
                ) from attempt.error


def checked_spec(activity: Callable[..., Any]) -> StreamingSpec:
    """Return how an activity streams.

    Raises:
        TypeError: It does not, or is a method that is not bound.
    """
    name = getattr(activity, "__qualname__", repr(activity))
    spec = spec_of(activity)
    if spec is None:
        raise TypeError(
            f"{name} is no streaming activity: decorate it with @streaming_activity. Other "
            "activities are tested with temporalio.testing.ActivityEnvironment"
        )
    parameters = list(inspect.signature(activity).parameters)
    if parameters[:1] == ["self"]:
        raise TypeError(
            f"{name} is a method without its object: pass that of an instance, as a worker gets it"
        )
    return spec


def _no_next(attempt: RecordedAttempt[Any, Any], number: int) -> AssertionError:
    error = AssertionError(
        f"attempt {attempt.number} {_ending(attempt)}: Temporal runs no attempt {number}"
    )
    error.__cause__ = attempt.error
    return error


def _ending(attempt: RecordedAttempt[Any, Any]) -> str:
    if attempt.has_completed:
        return "completed"
    error = attempt.error or attempt.failure
    return f"failed ({type(error).__name__}: {error})"
