"""Seals or removes streams that crashed producers left behind, and reports what was done.

Design: docs/design/sweeping.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Literal, NamedTuple

from ._errors import (
    ConfigurationError,
    CorruptRecordError,
    FencedError,
    SealedError,
    StreamNotFoundError,
    StreamqError,
)
from ._events import StreamId, user_stream
from ._executions import Execution, execution_of
from ._settings import Settings
from .calling import _calls as calling
from .calling._reads import Reads
from .driver import START, ChunkQueue, StreamInfo
from .opening._open import open_writer, retry_policy
from .reading._tail import Tail, read_tail
from .records._wire import Record, RecordKind
from .writing._policies import OnRetry

SWEEPER = "streamq.sweep"
"""Producer name in the seal of a sweep: :attr:`streamq.SealedError.producer`."""

GONE = "ProducerGone"
"""Error type in the seal of a sweep."""

_CONCURRENT_STREAMS = 16
_MAX_FINDINGS = 1_000
_PAGE_RECORDS = 1_000
_PAGE_BYTES = 4_194_304


class Life(enum.Enum):
    """Whether the workflow or activity behind a stream can still write to it."""

    RUNNING = "running"
    OVER = "over"
    UNSURE = "unsure"


class Verdict(NamedTuple):
    """Whether the execution behind a stream still runs, and the reason in words."""

    life: Life
    reason: str


Judge = Callable[[Execution], Awaitable[Verdict]]
"""Judges whether a workflow's chain of runs, or a standalone activity, has ended; never raises."""


@dataclass(frozen=True)
class SweepRequest:
    """Request of a sweep; plain JSON for other SDKs.

    Attributes:
        tenant: Tenant of the streams, by default the configured one.
        prefix: Only streams whose name starts with it.
        grace_seconds: How long ago a workflow, or a standalone activity, must have ended before its
            streams are sealed: its activities may still be sealing them.
        unknown: Also seal streams whose workflow or activity the namespace does not know. It may
            have been deleted or be past its retention, but may also run in another namespace.
        delete_persistent_seconds: Delete streams that never expire, although the backend lets
            streams expire, once their newest attempt began this long ago and nothing runs behind
            them. By default they are only reported.
        dry_run: Only report what would be done.
    """

    tenant: str | None = None
    prefix: str = ""
    grace_seconds: float = 60.0
    unknown: bool = False
    delete_persistent_seconds: float | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class SweepFinding:
    """The result for one stream.

    Attributes:
        stream: Its name, within the tenant.
        done: ``sealed``: it was sealed with an error, which its readers receive. ``deleted``: it
            had no time to live. ``kept``: nothing was done, for want of certainty. ``failed``:
            nothing was done, because of an error. In a dry run, what would be done.
        reason: The reason in words.
    """

    stream: str
    done: Literal["sealed", "deleted", "kept", "failed"]
    reason: str


@dataclass(frozen=True)
class SweepSummary:
    """The result of a sweep.

    Attributes:
        tenant: Tenant of the streams.
        prefix: Prefix of their names.
        backend: The backend that stores them.
        dry_run: Whether nothing was changed.
        streams: How many were examined.
        ended: How many of them had ended already.
        open: How many have not ended and are named after neither a workflow nor an activity, so
            that a sweep cannot judge them.
        running: How many belong to a workflow or a standalone activity that runs.
        sealed: How many were sealed because that has ended.
        deleted: How many were deleted that would never have expired.
        kept: How many were kept for want of certainty.
        failed: How many could not be handled because of an error.
        expired: How many expired ones, of all tenants, were removed. Not known in a dry run.
        findings: The streams counted as sealed, deleted, kept or failed; the first thousand.
        problems: What kept the sweep from doing all of its work.
        notes: What no sweep does on this backend.
    """

    tenant: str
    prefix: str
    backend: str
    dry_run: bool
    streams: int = 0
    ended: int = 0
    open: int = 0
    running: int = 0
    sealed: int = 0
    deleted: int = 0
    kept: int = 0
    failed: int = 0
    expired: int | None = None
    findings: list[SweepFinding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def judge_nothing(execution: Execution) -> Verdict:
    """Judge every execution unsure, for a sweep that must not query Temporal."""
    return Verdict(Life.UNSURE, f"Temporal was not queried whether {execution} runs")


async def sweep(
    queue: ChunkQueue,
    settings: Settings,
    request: SweepRequest,
    judge: Judge,
    *,
    on_progress: Callable[[int], None] = lambda streams: None,
) -> SweepSummary:
    """Remove expired streams, seal those of ended executions, and report those that never expire.

    An execution is a workflow's chain of runs, or an activity that runs without a workflow.

    A stream is sealed in this order: its newest attempt is noted; the judge is called; a newer
    attempt is opened, which fences the noted one and is itself fenced by any later one; the judge
    is called again. So an attempt that begins meanwhile wins. Any number of sweeps may run at the
    same time. Cancellation: a stream may be left fenced without its seal; the next sweep seals it.

    Args:
        queue: The backend; stays open.
        settings: Limits, and the tenant if the request names none.
        request: What to do.
        judge: Returns whether an execution still runs.
        on_progress: Called after each stream with the number examined so far.

    Raises:
        ConfigurationError: The request is invalid.
        StreamqError: The backend cannot list its streams or remove expired ones. An error that
            concerns one stream becomes a finding instead.
    """
    _check(request)
    return await _Sweep(queue, settings, request, judge, on_progress).run()


def _check(request: SweepRequest) -> None:
    try:
        request.prefix.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"prefix {request.prefix!r} has a lone surrogate, which no name has"
        ) from None
    for name in ("grace_seconds", "delete_persistent_seconds"):
        seconds = getattr(request, name)
        if seconds is not None and not 0 <= seconds < math.inf:
            raise ConfigurationError(f"{name} must be a number of at least 0, not {seconds}")
    if request.tenant is not None:
        try:
            user_stream(request.tenant, "any")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None


class _Sweep:
    def __init__(
        self,
        queue: ChunkQueue,
        settings: Settings,
        request: SweepRequest,
        judge: Judge,
        on_progress: Callable[[int], None],
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._request = request
        self._judge = judge
        self._on_progress = on_progress
        self._retry = retry_policy(settings, queue)
        self._counts: Counter[str] = Counter()
        self._findings: list[SweepFinding] = []
        self._problems: list[str] = []
        self._notes: list[str] = []

    async def run(self) -> SweepSummary:
        request, queue = self._request, self._queue
        tenant = request.tenant or self._settings.tenant
        if queue.capabilities.fenced:
            await self._examine_all(tenant)
        else:
            self._notes.append(
                f"backend {queue.backend!r} does not fence attempts, so that streams cannot be "
                "ended from outside; streams that expire are removed, and single ones by "
                "'streamq delete'"
            )
        # Last, so that streams that were deleted or expired meanwhile are removed as well.
        expired = None if request.dry_run else await self._retry.run(lambda: calling.sweep(queue))
        return SweepSummary(
            tenant,
            request.prefix,
            queue.backend,
            request.dry_run,
            **self._counts,
            expired=expired,
            findings=sorted(self._findings, key=lambda finding: finding.stream),
            problems=self._problems,
            notes=self._notes,
        )

    async def _examine_all(self, tenant: str) -> None:
        room = asyncio.Semaphore(_CONCURRENT_STREAMS)
        try:
            async with asyncio.TaskGroup() as examinations:
                listing = calling.streams(self._queue, tenant, self._request.prefix)
                async with contextlib.aclosing(listing):
                    async for info in listing:
                        await room.acquire()
                        task = examinations.create_task(self._examine(info))
                        task.add_done_callback(lambda _: room.release())
        except* StreamqError as group:
            raise group.exceptions[0] from None

    async def _examine(self, info: StreamInfo) -> None:
        try:
            await self._handle(info)
        except StreamNotFoundError:
            pass  # deleted or expired since it was listed
        except StreamqError as exc:
            self._find(info.stream, "failed", str(exc))
        self._counts["streams"] += 1
        self._on_progress(self._counts["streams"])

    async def _handle(self, info: StreamInfo) -> None:
        stream = info.stream
        if not self._queue.capabilities.replay:
            self._counts["open"] += 1  # its reader may have removed the records, even the seal
            return
        tail = await read_tail(self._queue, stream, self._retry)
        is_persistent = tail.info.expires_in is None and self._queue.capabilities.expires
        execution = execution_of(stream.name)
        if tail.state.seal is not None:
            if is_persistent:
                await self._handle_persistent(tail)
            else:
                self._counts["ended"] += 1
        elif execution is None:
            if is_persistent:
                await self._handle_persistent(tail)
            else:
                self._counts["open"] += 1
        else:
            verdict = await self._judge(execution)
            if verdict.life is Life.RUNNING and is_persistent:
                self._find(stream, "kept", f"it never expires, and {verdict.reason}")
            elif verdict.life is Life.RUNNING:
                self._counts["running"] += 1
            elif verdict.life is Life.UNSURE:
                self._find(stream, "kept", verdict.reason)
            elif self._request.dry_run:
                self._find(stream, "sealed", verdict.reason)
            else:
                await self._seal(tail, execution)

    async def _seal(self, tail: Tail, execution: Execution) -> None:
        stream = tail.info.stream
        try:
            writer = await open_writer(
                stream,
                queue=self._queue,
                settings=self._settings,
                # The next epoch, not one from the clock: any attempt opened later must win.
                epoch=tail.state.epoch + 1,
                on_retry=OnRetry.RESUME,
                producer=SWEEPER,
                seals_failures=False,
            )
            try:
                verdict = await self._judge(execution)
                if verdict.life is not Life.OVER:
                    self._find(stream, "kept", f"changed during the sweep: {verdict.reason}")
                    return
                await writer.fail(
                    f"{verdict.reason} without sealing the stream; streamq sweep ended it",
                    error_type=GONE,
                )
            finally:
                await writer.aclose()
        except (FencedError, SealedError):
            self._find(stream, "kept", "another writer took it over or ended it at the same moment")
            return
        self._find(stream, "sealed", verdict.reason)

    async def _handle_persistent(self, tail: Tail) -> None:
        """Report or delete a stream that never expires and that nothing writes to any more."""
        stream, limit = tail.info.stream, self._request.delete_persistent_seconds
        if limit is None:
            self._find(stream, "kept", "it never expires: its time to live was removed")
            return
        opened_ms = await self._newest_opening(stream)
        if opened_ms is None:
            self._find(stream, "kept", "it never expires, and its age is not known")
            return
        seconds = int(time.time() - opened_ms / 1000)
        if seconds < 0:
            reason = f"its newest attempt began {-seconds} s in the future by its producer's clock"
            self._find(stream, "kept", f"it never expires; {reason}: compare the hosts' clocks")
            return
        age = timedelta(seconds=seconds)
        if age.total_seconds() < limit:
            self._find(stream, "kept", f"it never expires; its newest attempt began {age} ago")
            return
        if not self._request.dry_run:
            now = await self._retry.run(lambda: calling.describe(self._queue, stream, last=1))
            if now.expires_in is not None or now.last[0].position != tail.position:
                self._find(stream, "kept", "it was written to at the same moment")
                return
            await self._retry.run(lambda: calling.delete(self._queue, stream))
        self._find(stream, "deleted", f"it never expired; its newest attempt began {age} ago")

    async def _newest_opening(self, stream: StreamId) -> int | None:
        """Read the whole stream; return when its newest attempt began, in Unix milliseconds."""
        position, newest = START, None
        reads = Reads(self._queue, stream)
        while True:
            page = await self._retry.run(
                partial(
                    reads.read,
                    position,
                    max_records=_PAGE_RECORDS,
                    max_bytes=_PAGE_BYTES,
                    max_wait=0.0,
                )
            )
            if not page:
                return newest
            for stored in page:
                try:
                    record = Record.decode(stored.data)
                except CorruptRecordError as exc:
                    exc.backend, exc.stream = self._queue.backend, str(stream)
                    raise
                if record.kind is RecordKind.OPEN:
                    newest = record.created_ms
            position = page[-1].position

    def _find(
        self,
        stream: StreamId,
        done: Literal["sealed", "deleted", "kept", "failed"],
        reason: str,
    ) -> None:
        self._counts[done] += 1
        if len(self._findings) < _MAX_FINDINGS:
            self._findings.append(SweepFinding(stream.name, done, reason))
