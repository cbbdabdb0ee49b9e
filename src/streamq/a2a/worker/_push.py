"""Runs ``streamq.a2a.push``: sends the events of a task to one receiver, until the task has ended.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from streamq._errors import (
    ConfigurationError,
    ProducerGoneError,
    StreamNotFoundError,
    StreamqError,
    TrimmedError,
)
from streamq._events import Chunk, Event, Seal, SealState
from streamq.a2a._entries import LOG_TOPIC, Json
from streamq.a2a._push_config import PushConfig
from streamq.temporal._failure import application_error
from streamq.temporal._subscribe import Subscription, subscribe
from streamq.temporal.activities._context import (
    ActivityContext,
    activity_context,
    wait_without_slot,
)

from ._push_events import Notification, Notifications

if TYPE_CHECKING:
    from ._push_sender import Answer, NotificationSender

PUSH_ACTIVITY = "streamq.a2a.push"

_LONGEST_BEAT_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 300.0
_GONE = 410
_CONTENT_REFUSED = frozenset({400, 413, 415, 422})
_CONTENT_TRIES = 3
_MOST_LEFT_OUT = 3
"""Most notifications in a row that are left out."""


@dataclass(frozen=True, slots=True)
class PushOrder:
    """Which task's events are sent, and where; plain JSON.

    Attributes:
        task_id: Id of the task.
        context_id: Its context.
        config: The config.
    """

    task_id: str
    context_id: str
    config: Json


@dataclass(frozen=True, slots=True)
class _Place:
    """Heartbeat details, which state where the next attempt goes on.

    Attributes:
        cursor: Where in the log.
        number: Number of the newest event before it.
        after: Number of the last event that was sent, or is not sent.
        failing_since: When the next notification failed first, in seconds since 1970; 0 if it did
            not.
    """

    cursor: str
    number: int
    after: int
    failing_since: float = 0.0


@activity.defn(name=PUSH_ACTIVITY)
async def push(request: PushOrder) -> str:
    """Send the events of a task to a receiver, one after the other, until the task has ended.

    Each is sent until the receiver takes it. Heartbeats have the position, where the next attempt
    goes on. What was sent after the last of them is sent twice; receivers know it by its number.
    It takes an activity slot only to begin.

    Returns:
        How it ended, in words for operators.

    Raises:
        ApplicationError: Its type is the name of the streamq error.
    """
    work = _Pushing(request, activity_context())
    return await wait_without_slot(
        work.run(), longest_seconds=_LONGEST_BEAT_SECONDS, details=work.details
    )


class _Pushing:
    """One attempt to send a task's events to one receiver."""

    def __init__(self, request: PushOrder, context: ActivityContext) -> None:
        self._request, self._context = request, context
        self._config = PushConfig.from_json(request.config)
        found = activity.info().heartbeat_details
        self._place = (
            _Place(**found[0]) if found else _Place(self._config.cursor, 0, self._config.after)
        )
        self._events = Notifications(
            request.task_id,
            request.context_id,
            after=self._place.after,
            number=self._place.number,
        )
        self._left_out = 0

    def details(self) -> Sequence[Any]:
        """Return the details of a heartbeat, which state where the next attempt goes on."""
        return [dataclasses.asdict(self._place)]

    async def run(self) -> str:
        """Send until the end of the task, or of the receiver."""
        try:
            async with self._sender() as sender:
                return await self._run(sender)
        except (StreamNotFoundError, TrimmedError) as exc:
            return f"the events are not stored any more: {exc}"
        except StreamqError as exc:
            raise application_error(exc) from exc

    def _sender(self) -> NotificationSender:
        try:
            from ._push_sender import NotificationSender

            return NotificationSender(self._config, self._context.settings, self._request.task_id)
        except ModuleNotFoundError as exc:
            problem = f'{exc.name} is missing: pip install "streamq[a2a-worker]" on every worker'
        except ConfigurationError as exc:
            problem = exc.message
        # Another worker may be set up better; this one is logged with each attempt.
        raise ApplicationError(problem, type=ConfigurationError.__name__)

    async def _run(self, sender: NotificationSender) -> str:
        handle: Any = self._context.client.get_workflow_handle(self._request.task_id)
        reading = subscribe(
            handle,
            LOG_TOPIC,
            from_=self._place.cursor or "beginning",
            queue=self._context.queue,
            settings=self._context.settings,
            idle_seconds=math.inf,
        )
        async with reading as events:
            try:
                async for event in events:
                    if (ending := await self._take(event, events, sender)) is not None:
                        return ending
            except ProducerGoneError as exc:
                return await self._end(sender, is_cancelled=exc.status == "CANCELED")
        return "the log has ended"

    async def _take(
        self, event: Event, events: Subscription[Any], sender: NotificationSender
    ) -> str | None:
        """Send what an event of the log brings; return how everything ended, if it did."""
        if isinstance(event, Seal):
            return await self._end(sender, is_cancelled=event.state is SealState.CANCELLED)
        if isinstance(event, Chunk):
            ending = await self._send_all(self._events.take(event.value), sender)
            if ending is not None:
                return ending
        if not self._events.holds_back:
            number = self._events.number
            after = max(self._place.after, number) if number else self._place.after
            self._place = _Place(events.cursor, number, after)
        return None

    async def _end(self, sender: NotificationSender, *, is_cancelled: bool) -> str:
        """Send the end of a task that did not say so."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ending = self._events.gone(now, is_cancelled=is_cancelled)
        return await self._send_all(ending, sender) or "nothing was left to send"

    async def _send_all(
        self, found: Iterator[Notification], sender: NotificationSender
    ) -> str | None:
        for each in found:
            if (problem := await self._send(each, sender)) is not None:
                return problem
            if each.is_last:
                return "everything was sent"
        return None

    async def _send(self, notification: Notification, sender: NotificationSender) -> str | None:
        """Send a notification until it is taken; return why nothing more is sent, if so."""
        pause, tries = _SHORTEST_PAUSE_SECONDS, 0
        while not (answer := await sender.post(notification.content)).is_good:
            tries += 1
            if answer.is_refused or answer.status == _GONE:
                return self._given_up(notification, answer)
            if self._is_left_out(answer, tries):
                self._left_out += 1
                self._warn("is left out", notification, answer)
                break
            now = time.time()
            since = self._place.failing_since or now
            if not self._place.failing_since:
                self._place = dataclasses.replace(self._place, failing_since=since)
                self._warn("failed, and is tried again", notification, answer)
            seconds = max(random.uniform(pause / 2, pause), answer.retry_after)
            seconds = min(seconds, _LONGEST_PAUSE_SECONDS)
            if now + seconds > since + self._context.settings.a2a_push_retry_seconds:
                return self._given_up(notification, answer)
            await asyncio.sleep(seconds)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            self._left_out = 0
        self._place = dataclasses.replace(
            self._place, after=max(self._place.after, notification.number), failing_since=0.0
        )
        return None

    def _is_left_out(self, answer: Answer, tries: int) -> bool:
        """Whether the receiver refuses this one notification; one that refuses all waits."""
        is_refused = answer.status in _CONTENT_REFUSED and tries >= _CONTENT_TRIES
        return is_refused and self._left_out < _MOST_LEFT_OUT

    def _given_up(self, notification: Notification, answer: Answer) -> str:
        self._warn("is given up, with all that follow", notification, answer)
        return f"the receiver was given up at event {notification.number}: {answer}"

    def _warn(self, what: str, notification: Notification, answer: Answer) -> None:
        activity.logger.warning(
            "push notification %d of task %s for config %s %s: %s",
            notification.number,
            self._request.task_id,
            self._config.id,
            what,
            answer,
        )
