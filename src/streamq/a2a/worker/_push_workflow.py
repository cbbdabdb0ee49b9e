"""Defines ``streamq.A2APush``: the workflow that keeps where a task's notifications go.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from streamq.a2a._entries import Json
from streamq.a2a._push_config import (
    DELETE_UPDATE,
    PUSH_MEMO,
    PUSH_WORKFLOW,
    SET_UPDATE,
    TOO_MANY,
    PushRequest,
)

from ._push import PushOrder, push

_FOREVER = timedelta(days=3_650)
_FIRST_CHANGE = timedelta(minutes=1)
_MOST_CONFIGS = 20
_MOST_CHANGES = 200
"""Each change writes all configs into the history of the run."""


@workflow.defn(name=PUSH_WORKFLOW)
class PushWorkflow:
    """Sends the events of one task to its receivers, each in an activity of its own.

    It ends when nothing is left to send. Its memo has the configs, also after its end.
    """

    @workflow.init
    def __init__(self, request: PushRequest) -> None:
        self._request = request
        self._configs: dict[str, Json] = {each["id"]: each for each in request.kept}
        self._sending: dict[str, workflow.ActivityHandle[str]] = {}
        self._changing = asyncio.Lock()
        self._changes = 0
        workflow.set_update_handler(SET_UPDATE, self._set, validator=self._check)
        workflow.set_update_handler(DELETE_UPDATE, self._delete)

    @workflow.run
    async def run(self, request: PushRequest) -> dict[str, str]:
        """Return how it ended for each config, in words for operators."""
        for config in request.configs:
            self._begin(config)
        if not request.configs:
            # The change for which it was started comes with the start, or was lost.
            await _until(lambda: self._changes > 0)
        await workflow.wait_condition(self._is_over)
        return {name: _ending(each) for name, each in self._sending.items()}

    def _is_over(self) -> bool:
        is_idle = all(each.done() for each in self._sending.values())
        return is_idle and workflow.all_handlers_finished()

    def _check(self, config: Json) -> None:
        is_new = config["id"] not in self._configs
        if is_new and len(self._configs) >= _MOST_CONFIGS:
            raise ApplicationError(
                f"A task has at most {_MOST_CONFIGS} push notification configs", type=TOO_MANY
            )
        if self._changes >= _MOST_CHANGES:
            raise ApplicationError(
                "The push notification configs of this task were changed too often", type=TOO_MANY
            )

    async def _set(self, config: Json) -> None:
        """Send to a receiver from now on, in the place of the one with the same id."""
        async with self._changing:
            await self._stop(config["id"])
            self._begin(config)
            self._keep()

    async def _delete(self, config_id: str) -> None:
        """Send nothing more to a receiver; returns when nothing is on its way."""
        async with self._changing:
            await self._stop(config_id)
            self._configs.pop(config_id, None)
            self._keep()

    def _begin(self, config: Json) -> None:
        self._configs[config["id"]] = config
        self._sending[config["id"]] = workflow.start_activity(
            push,
            PushOrder(self._request.task_id, self._request.context_id, config),
            start_to_close_timeout=_FOREVER,
            heartbeat_timeout=timedelta(seconds=self._request.heartbeat_seconds),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    async def _stop(self, config_id: str) -> None:
        sending = self._sending.pop(config_id, None)
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def _keep(self) -> None:
        self._changes += 1
        workflow.upsert_memo({PUSH_MEMO: list(self._configs.values())})


@workflow.defn(name=PUSH_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedPushWorkflow(PushWorkflow):
    """Stays with the version that began it, as the task's own workflow does."""

    @workflow.init
    def __init__(self, request: PushRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: PushRequest) -> dict[str, str]:
        """Run as the base class does."""
        return await super().run(request)


async def _until(condition: Callable[[], bool]) -> None:
    with contextlib.suppress(TimeoutError):
        await workflow.wait_condition(condition, timeout=_FIRST_CHANGE)


def _ending(sending: workflow.ActivityHandle[str]) -> str:
    failure = sending.exception() if not sending.cancelled() else None
    if failure is None:
        return "stopped" if sending.cancelled() else sending.result()
    cause = failure.cause if isinstance(failure, ActivityError) else failure
    return "stopped" if is_cancelled_exception(failure) else f"failed: {cause}"
