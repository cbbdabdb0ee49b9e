"""Passes on what a workflow publishes with the SDK's ``WorkflowStream``, or takes for others.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.contrib import workflow_streams as original
from temporalio.exceptions import ApplicationError

from ._items import PublishEntry
from ._protocol import OFFSET_QUERY, PATCH, POLL, PUBLISH_SIGNAL
from ._sending import check_size, route, send, take_request
from ._workflow_stream import WorkflowStream

_EVER = timedelta(days=36_500)
_MARK = "streamq "


class HostedStream:
    """The stream that a workflow hosts, on a worker that routes Workflow Streams.

    The SDK's ``WorkflowStream`` keeps what is published in the workflow's memory. Here an activity
    sends it to the queue, after which it is removed from memory. The next run takes over the rest,
    with the state of the stream. It may have been sent already; the state says which run numbered
    it, so that a repeat is recognised.
    """

    def __init__(self) -> None:
        route()
        self._stream: original.WorkflowStream | None = None
        self._get_state: Callable[..., original.WorkflowStreamState] | None = None
        self._handed_over: int | None = None
        self._sent = 0
        self._take_over()
        self._passing: asyncio.Task[None] = asyncio.create_task(self._pass_on())

    @property
    def is_used(self) -> bool:
        """Whether the workflow hosts a stream, and has done so since it began to be routed."""
        return _handler() is not None and workflow.patched(PATCH)

    async def flush(self, *, continues: bool = False) -> None:
        """Wait until all published items have arrived, or the next run takes them over."""
        if self._stream is None and _handler() is not None:
            # Conditions are checked between tasks, and this one may be the first and the last.
            self._passing.cancel()
            self._passing = asyncio.create_task(self._pass_on())
            await asyncio.sleep(0)
        if self._stream is None or (continues and self._handed_over == _length()):
            return
        if _length() > self._sent:
            await workflow.wait_condition(lambda: self._passing.done() or _length() <= self._sent)
        if self._passing.done():
            self._passing.result()

    def _take_over(self) -> None:
        """Take the stream over, if the workflow hosts one."""
        host = getattr(_handler(), "__self__", None)
        if _handler() is None or isinstance(host, WorkflowStream) or not workflow.patched(PATCH):
            return
        if not isinstance(host, original.WorkflowStream):
            workflow.logger.warning(
                "another handler than that of a WorkflowStream takes the signal %s; what it takes "
                "is not routed",
                PUBLISH_SIGNAL,
            )
            return
        self._stream, self._get_state = host, host.get_state
        host.get_state = self._marked_state  # type: ignore[method-assign]
        workflow.set_update_handler(POLL, _refuse, validator=_refuse_at_once)
        host.detach_pollers()  # one that came with the start of the workflow would wait in vain
        self._sent = self._waiting().base_offset

    async def _pass_on(self) -> None:
        if _handler() is None:
            await workflow.wait_condition(lambda: _handler() is not None)
        if self._stream is None:
            self._take_over()
        while self._stream is not None:
            if _length() <= self._sent:
                await workflow.wait_condition(lambda: _length() > self._sent)
            self._sent = await self._send_next()

    async def _send_next(self) -> int:
        """Send the first of the items that wait; return the offset after them."""
        assert self._stream is not None
        state = self._waiting()
        first = state.base_offset
        run_id, until = _numbered_by(state)
        waiting = [PublishEntry(each.topic, each.data) for each in state.log[: until - first]]
        if not waiting:
            return until  # the workflow has truncated them
        check_size(waiting[0])
        request = take_request(f"workflow {run_id}", first + 1, waiting)
        await send(request)
        self._stream.truncate(first + len(request.items))
        return first + len(request.items)

    def _waiting(self) -> original.WorkflowStreamState:
        assert self._get_state is not None
        return self._get_state(publisher_ttl=_EVER)

    def _marked_state(self, **options: Any) -> original.WorkflowStreamState:
        """Return the state for the next run, with the run that numbered its items."""
        assert self._get_state is not None
        state = self._get_state(**options)
        inherited = {
            key: value
            for key, value in self._waiting().publishers.items()
            if key.startswith(_MARK) and value.sequence > state.base_offset
        }
        mine = original.PublisherState(sequence=_length(), last_seen=workflow.now())
        state.publishers |= {**inherited, f"{_MARK}{workflow.info().run_id}": mine}
        self._handed_over = _length()
        return state


def _numbered_by(state: original.WorkflowStreamState) -> tuple[str, int]:
    """Return the run that numbers the first items of a state, and the offset where they end."""
    own = workflow.info().run_id
    earlier = [
        (value.sequence, key.removeprefix(_MARK))
        for key, value in state.publishers.items()
        if key.startswith(_MARK) and value.sequence > state.base_offset
    ]
    until, run_id = min((mark for mark in earlier if mark[1] != own), default=(0, own))
    return run_id, until or state.base_offset + len(state.log)


def _handler() -> Callable[..., Any] | None:
    return workflow.get_signal_handler(PUBLISH_SIGNAL)


def _length() -> int:
    count = workflow.get_query_handler(OFFSET_QUERY)
    if count is None:
        raise ApplicationError(
            "this version of temporalio.contrib.workflow_streams has no query for the offset; use "
            "a newer temporalio, or no route_workflow_streams",
            non_retryable=True,
        )
    return int(count())


def _refuse_at_once(_request: original.PollInput) -> None:
    raise ApplicationError(
        "what this workflow publishes is on streamq's backend, not in the workflow: subscribe with "
        "streamq.temporal.subscribe(handle, topic), or with WorkflowStreamClient of "
        "streamq.temporal.workflow_streams",
        type="WorkflowStreamRouted",
    )


async def _refuse(request: original.PollInput) -> original.PollResult:
    _refuse_at_once(request)
    return original.PollResult()
