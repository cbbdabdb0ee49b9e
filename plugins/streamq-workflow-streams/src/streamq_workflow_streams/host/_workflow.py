"""Keeps one stream in the memory of a workflow and in its history."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.contrib.workflow_streams import (
    PollInput,
    PollResult,
    PublishInput,
    WorkflowStream,
    WorkflowStreamState,
)
from temporalio.exceptions import ApplicationError

from streamq.driver import Entry, FencedError, StreamId, encode_position, new_entries
from streamq_workflow_streams._errors import BACKEND
from streamq_workflow_streams._protocol import (
    APPEND,
    CROWDED,
    DESCRIBE,
    DRAINING,
    FENCED,
    FULL,
    HOST_WORKFLOW,
    POLL,
    PUBLISH,
    READ,
    RECORD_OVERHEAD_BYTES,
    TRIM,
    Key,
    binary_payload,
    pack,
    unpack,
)

_UNUSED_HOST_TTL = timedelta(minutes=1)  # of a host whose first append was rejected
_APPENDS_PER_RUN = 1_000  # Temporal allows 2,000 updates in a run; polls of readers count, too
_MOST_POLLS = 6
"""Polls that may wait. Temporal allows 10 updates at once; the others are for appends."""


# A sandbox imports the SDK's module again for every new stream, which takes a tenth of a second
# of the worker's CPU.
@workflow.defn(name=HOST_WORKFLOW, sandboxed=False)
class HostWorkflow:
    """One stream. Its first append starts it; its time to live or a termination ends it.

    Its records are also the items of a ``WorkflowStream`` of the Temporal SDK. Any client of
    Workflow Streams can subscribe, in any language: each item has the record as bytes and its
    position as topic. Items that such a client publishes are ignored, because appends are fenced.

    Args:
        state: A frame with the state of the previous run; empty for a new stream.
    """

    @workflow.init
    def __init__(self, state: bytes) -> None:
        header, records = unpack(state) if state else ({}, [])
        self._keys: list[Key] = [(epoch, index) for epoch, index in header.get("keys", ())]
        self._records = records
        self._cost = sum(map(_cost, records))
        self._newest: Key = self._keys[-1] if self._keys else (0, -1)
        self._expires_at: datetime = (
            datetime.fromisoformat(header["expires_at"])
            if header
            else workflow.now() + _UNUSED_HOST_TTL
        )
        self._base: int = header.get("base", 0)  # offset of the oldest record in the WorkflowStream
        self._wakes_at = self._expires_at
        self._appends = 0
        self._stream = WorkflowStream(WorkflowStreamState(base_offset=self._base))
        for key, record in zip(self._keys, records, strict=True):
            self._publish(key, record)
        workflow.set_signal_handler(PUBLISH, self._ignore_published)
        self._polls = 0
        self._is_draining = False
        answer_poll = workflow.get_update_handler(POLL)
        assert answer_poll is not None  # the SDK's, of the stream above
        self._answer_poll = answer_poll
        workflow.set_update_handler(POLL, self._poll, validator=self._may_poll)

    @workflow.run
    async def run(self, state: bytes) -> None:
        """Run until the time to live has passed, in as many runs as that takes."""
        while not self._wants_new_run() and self._time_left() > timedelta():
            self._wakes_at = self._expires_at
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(self._must_wake, timeout=self._time_left())
        self._is_draining = True
        self._stream.detach_pollers()
        await workflow.wait_condition(workflow.all_handlers_finished)
        # An append may have come while the pollers were detached.
        if self._time_left() > timedelta():
            workflow.continue_as_new(pack(self._facts(), self._records))

    @workflow.update(name=APPEND)
    def append(self, request: bytes) -> None:
        """Store entries by the rules of ``streamq.driver.ChunkQueue.append``."""
        header, fresh = self._accept(request)
        if self._time_left() <= timedelta():
            self._forget(0)  # expired, and the timer has not fired yet
        for entry in fresh:
            self._newest = (entry.epoch, entry.index)
            self._keys.append(self._newest)
            self._records.append(entry.data)
            self._cost += _cost(entry.data)
            self._publish(self._newest, entry.data)
        self._appends += 1
        self._expires_at = workflow.now() + timedelta(seconds=header["ttl"])

    @append.validator
    def _may_append(self, request: bytes) -> None:
        # An append that the validator rejects leaves no event in the history.
        self._accept(request)

    @workflow.update(name=TRIM)
    def trim(self, keep: int) -> None:
        """Remove all but the newest records; keep at least one."""
        self._forget(max(1, keep))

    @workflow.query(name=READ)
    def read(self, request: bytes) -> bytes:
        """Return records after a key and the offset behind them; at least one if there is one."""
        header, _ = unpack(request)
        epoch, index = header["after"]
        start = bisect_right(self._keys, (epoch, index))
        end, room = start, header["max_bytes"]
        for record in self._records[start : start + header["max_records"]]:
            room -= len(record)
            if end > start and room < 0:
                break
            end += 1
        facts = self._facts(start, end)
        return pack({**facts, "next": self._base + end}, self._records[start:end])

    @workflow.query(name=DESCRIBE)
    def describe(self, request: bytes) -> bytes:
        """Return counts and the newest records, oldest first."""
        header, _ = unpack(request)
        start = max(0, len(self._keys) - header["last"])
        facts = {
            **self._facts(start),
            "records": len(self._keys),
            "size_bytes": sum(map(len, self._records)),
        }
        return pack(facts, self._records[start:])

    # -- inside --------------------------------------------------------------------------------

    def _time_left(self) -> timedelta:
        return self._expires_at - workflow.now()

    def _wants_new_run(self) -> bool:
        return self._appends >= _APPENDS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    def _must_wake(self) -> bool:
        return self._wants_new_run() or self._expires_at < self._wakes_at

    def _facts(self, start: int = 0, end: int | None = None) -> dict[str, Any]:
        return {
            "keys": self._keys[start:end],
            "expires_at": self._expires_at.isoformat(),
            "base": self._base,
        }

    def _accept(self, request: bytes) -> tuple[dict[str, Any], list[Entry]]:
        header, data = unpack(request)
        entries = [
            Entry(epoch, index, record)
            for (epoch, index), record in zip(header["keys"], data, strict=True)
        ]
        has_expired = self._time_left() <= timedelta()
        newest = (0, -1) if has_expired else self._newest
        stream = StreamId(header["tenant"], header["name"])
        try:
            fresh = new_entries(entries, newest, backend=BACKEND, stream=stream)
        except FencedError as exc:
            _reject(exc.message, FENCED)
        held = 0 if has_expired else self._cost
        added = sum(_cost(entry.data) for entry in fresh)
        if fresh and held + added > header["max_bytes"]:
            _reject(
                f"the stream holds {held} bytes and cannot take {added} more: a workflow keeps at "
                f"most {header['max_bytes']} of one stream",
                FULL,
            )
        return header, fresh

    def _publish(self, key: Key, data: bytes) -> None:
        self._stream.topic(encode_position(key)).publish(binary_payload(data))

    def _forget(self, keep: int) -> None:
        gone = max(0, len(self._keys) - keep)
        self._base += gone
        del self._keys[:gone], self._records[:gone]
        self._cost = sum(map(_cost, self._records))
        if not self._keys:
            self._newest = (0, -1)
        self._stream.truncate(self._base)

    async def _poll(self, request: PollInput) -> PollResult:
        self._polls += 1
        try:
            result: PollResult = await self._answer_poll(request)
        finally:
            self._polls -= 1
        return result

    def _may_poll(self, request: PollInput) -> None:
        if self._is_draining:
            _reject("the host continues as new", DRAINING)
        # A reader that has left cannot withdraw its poll. Without this limit such polls would take
        # all the updates that Temporal allows, and with them the append that ends them.
        if self._polls >= _MOST_POLLS:
            _reject(f"{self._polls} other polls wait for this stream", CROWDED)

    async def _ignore_published(self, published: PublishInput) -> None:
        workflow.logger.warning(
            "%d published items are not taken: this stream is written by streamq only",
            len(published.items),
        )


def _cost(record: bytes) -> int:
    return len(record) + RECORD_OVERHEAD_BYTES


def _reject(message: str, kind: str) -> NoReturn:
    raise ApplicationError(message, type=kind, non_retryable=True)
