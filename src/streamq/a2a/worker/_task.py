"""Lets a workflow be an A2A task: it reports, asks, names artifacts, and ends the task's log.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, Self

from temporalio import workflow
from temporalio.exceptions import ApplicationError, is_cancelled_exception

from streamq._errors import ConfigurationError
from streamq.a2a._entries import (
    LOG_TOPIC,
    MESSAGE_UPDATE,
    TOLD_TOPIC,
    Json,
    State,
    Told,
    agent_message,
    status_json,
)
from streamq.a2a._parts import part_of
from streamq.temporal._failure import is_non_retryable
from streamq.temporal._names import DEFAULT_TOPIC, check_topic
from streamq.temporal.workflow._end_stream import workflow_retries
from streamq.temporal.workflow._stream_topic import stream_topic

from ._collect import CollectRequest, collect
from ._input import TaskInput, text_of
from ._tell import TellRequest, tell

_TELL_TIMEOUT = timedelta(seconds=30)
_FOREVER = timedelta(days=3_650)
_FAILED = "The agent failed; its operator can find the reason."
_RESERVED = (LOG_TOPIC, TOLD_TOPIC)


class AgentTask:
    """The A2A task that the running workflow is.

    Make it in the workflow's ``@workflow.init``, so that it gets messages that arrive early, and
    enter it in the main method::

        async with self.task as task:
            task.status("looking for flights")
            answer = await task.ask("On which day?")
            with task.artifact("plan", name="Plan"):
                await workflow.execute_activity(plan, answer.text, ...)

    Every stream of topic ``default``, and of each topic named by :meth:`artifact`, is an artifact.
    Leaving the block ends the task, and waits until its last event is stored: COMPLETED; FAILED if
    an exception leaves it that fails the workflow, of which clients learn nothing more; CANCELED if
    the workflow was cancelled. :meth:`fail` and :meth:`reject` end it with a text for the client.
    Let activities end before the block does.

    :meth:`continue_as_new` lets the task go on in a new run. If a workflow with a retry policy
    fails and is started again, its task goes on, too: it is WORKING, and what its activities stream
    anew replaces the artifacts that were not complete.

    Args:
        request: Input of the workflow.
    """

    def __init__(self, request: TaskInput) -> None:
        self._request = request
        self._task_id = workflow.info().workflow_id
        self._outbox: list[Json] = []
        self._count = 0  # of what this run tells, without the first message
        self._ahead = 0  # how much is stored before that
        self._stored = 0  # in all
        self._inbox: list[Json] = list(request.pending)
        self._waits = False
        self._final: tuple[State, str] | None = None
        self._replied = self._is_over = False
        self._pump: asyncio.Task[None] | None = None
        self._log: workflow.ActivityHandle[int] | None = None
        workflow.set_update_handler(MESSAGE_UPDATE, self._on_message, validator=self._validate)

    @property
    def request(self) -> TaskInput:
        """What started the task."""
        return self._request

    def status(self, text: str = "") -> None:
        """Report progress: the task is WORKING, with a message if there is a text."""
        self._tell_status("WORKING", text)

    async def ask(self, text: str, *, needs_authentication: bool = False) -> FollowUp:
        """Ask the client, and return its next message.

        The task is INPUT_REQUIRED meanwhile, or AUTH_REQUIRED. A message that came earlier and was
        not taken yet is returned at once. There is no deadline of its own: use
        ``asyncio.timeout`` or ``asyncio.wait_for`` around it.

        Args:
            text: The question.
            needs_authentication: Whether the client has to authenticate somewhere first.
        """
        if not self._inbox:
            self._waits = True
            self._tell_status("AUTH_REQUIRED" if needs_authentication else "INPUT_REQUIRED", text)
            try:
                await workflow.wait_condition(lambda: bool(self._inbox))
            finally:
                self._waits = False
        return FollowUp(self._inbox.pop(0))

    @contextmanager
    def artifact(
        self,
        topic: str,
        *,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Let the streaming activities started in this block produce one artifact.

        Args:
            topic: Topic of their stream, and id of the artifact. A topic is for one activity.
            name: Name for people; by default the topic.
            description: What it is.
            metadata: JSON for programs.

        Raises:
            ConfigurationError: The topic is not usable, or one of those that the task itself uses.
        """
        if check_topic(topic) in _RESERVED:
            raise ConfigurationError(f"topic {topic!r} is the task's own; choose another name")
        self._tell(Told(follow=topic, artifact=_described(name, description, metadata)))
        with stream_topic(topic):
            yield

    def send_artifact(
        self,
        artifact_id: str,
        *values: Any,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a whole artifact from the workflow. Sent again, it replaces the one before.

        Args:
            artifact_id: Its id, which is not that of a topic.
            values: Its parts: text, bytes, :class:`FileReference`, :class:`FileContent`, or any
                JSON. They pass through the history of the workflow, so they should be small.
            name: Name for people; by default the id.
            description: What it is.
            metadata: JSON for programs.

        Raises:
            ConfigurationError: There is no value, or no id.
        """
        if not values or not artifact_id:
            raise ConfigurationError("an artifact has an id, and at least one part")
        found = _described(name or artifact_id, description, metadata)
        parts = [part_of(each) for each in values]
        self._tell(Told(parts=parts, artifact={"artifactId": artifact_id, **found}))

    def reply(self, text: str) -> None:
        """Answer with a message; no task comes into being. Leave the block after it.

        Raises:
            ConfigurationError: The agent was not declared with ``can_reply``, or the task has
                begun.
        """
        if not self._request.can_reply or self._ahead > 1 or self._count or self._replied:
            raise ConfigurationError(
                "a message can be the only answer to the first message, before any status, and "
                "only of an agent that is declared with can_reply=True"
            )
        self._replied = True
        self._tell(Told(reply=self._message(text)))

    async def continue_as_new(self, state: Any = None) -> NoReturn:
        """Continue the task in a new run of the workflow, whose history is empty.

        Waits until everything that was told is stored. Messages of the client that were not taken
        are in the next run. Use it inside of the block, after its activities have ended.

        Args:
            state: What the next run finds in its input as ``request.state``.

        Raises:
            ContinueAsNewError: Always; let it leave the workflow.
        """
        await self._settled()
        following = dataclasses.replace(self._request, state=state, pending=list(self._inbox))
        workflow.continue_as_new(following)

    def fail(self, text: str) -> None:
        """End the task as FAILED when the block is left, and tell the client why."""
        self._final = ("FAILED", text)

    def reject(self, text: str) -> None:
        """End the task as REJECTED when the block is left, and tell the client why."""
        self._final = ("REJECTED", text)

    async def __aenter__(self) -> Self:
        request = self._request
        self._log = workflow.start_activity(
            collect,
            CollectRequest(self._task_id, request.context_id, [DEFAULT_TOPIC]),
            start_to_close_timeout=_FOREVER,
            heartbeat_timeout=timedelta(seconds=request.heartbeat_seconds),
        )
        self._ahead = self._stored = await self._stored_before()
        status = None if request.can_reply and self._ahead < 2 else self._status("WORKING", "")
        # Before a message that came early.
        if not self._ahead:
            first = {**request.message, "taskId": self._task_id, "contextId": request.context_id}
            self._outbox.insert(0, Told(message=first, status=status).to_json())
            self._ahead = 1
        elif status is not None and workflow.info().attempt > 1:
            self._outbox.insert(0, Told(status=status).to_json())
            self._ahead += 1
        self._pump = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if isinstance(exc, workflow.ContinueAsNewError) or (exc and _is_retried(exc)):
            await self._settled()  # the next run goes on
            return
        ending = self._ending(exc)
        if ending is None:
            return
        state, text = ending
        self._is_over = True
        status = None if self._replied else self._status(state, text)
        self._tell(Told(status=status, is_last=True))
        assert self._log is not None
        await self._until_told()
        await self._log
        await workflow.wait_condition(workflow.all_handlers_finished)

    def _ending(self, exc: BaseException | None) -> tuple[State, str] | None:
        """Return how the task ends; not at all if the workflow's code will run again."""
        if exc is None:
            return self._final or ("COMPLETED", "")
        if isinstance(exc, asyncio.CancelledError) or is_cancelled_exception(exc):
            return ("CANCELED", "")
        if not isinstance(exc, Exception) or not workflow.is_failure_exception(exc):
            return None
        return self._final or ("FAILED", _FAILED)

    def _validate(self, message: Json) -> None:
        if self._is_over:
            raise ApplicationError("the task has ended", type="TaskOver")

    async def _on_message(self, message: Json) -> int:
        """Take a message of the client; returns when it is stored, and how much was told then."""
        self._inbox.append(message)
        self._tell(Told(message=message))
        if self._waits:
            self._waits = False
            self.status()
        return await self._until_told()

    async def _stored_before(self) -> int:
        """Return how much earlier runs of this workflow have told; nothing more of them follows."""
        info = workflow.info()
        if info.attempt == 1 and info.continued_run_id is None:
            return 0
        return await workflow.execute_activity(
            tell, TellRequest(0, []), start_to_close_timeout=_TELL_TIMEOUT
        )

    async def _until_told(self) -> int:
        wanted = self._count
        await workflow.wait_condition(lambda: self._has_stored(wanted) or self._has_failed())
        if self._has_failed():
            assert self._pump is not None
            await self._pump
        return self._ahead + wanted

    async def _settled(self) -> None:
        """Wait until everything is stored, and no message of the client is on its way to it."""
        while not (self._has_stored(self._count) and workflow.all_handlers_finished()):
            await self._until_told()
            await workflow.wait_condition(workflow.all_handlers_finished)

    def _has_stored(self, count: int) -> bool:
        return self._pump is not None and self._stored >= self._ahead + count

    def _has_failed(self) -> bool:
        return self._pump is not None and self._pump.done() and not self._has_stored(self._count)

    def _tell_status(self, state: State, text: str) -> None:
        self._tell(Told(status=self._status(state, text)))

    def _status(self, state: State, text: str) -> Json:
        now = workflow.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return status_json(state, now, self._message(text) if text else None)

    def _message(self, text: str) -> Json:
        number = str(workflow.uuid4())
        return agent_message(text, number, self._task_id, self._request.context_id)

    def _tell(self, told: Told) -> None:
        self._outbox.append(told.to_json())
        self._count += 1

    async def _send(self) -> None:
        """Store what is told, in its order, until the task is over."""
        while not self._is_over or self._outbox:
            await workflow.wait_condition(lambda: bool(self._outbox) or self._is_over)
            batch, self._outbox = self._outbox, []
            if not batch:
                continue
            await workflow.execute_activity(
                tell,
                TellRequest(self._stored, batch, is_last=bool(batch[-1].get("is_last"))),
                start_to_close_timeout=_TELL_TIMEOUT,
            )
            self._stored += len(batch)


def _is_retried(exc: BaseException) -> bool:
    """Whether the workflow is started again if this exception leaves it, by its retry policy."""
    if not isinstance(exc, Exception) or not workflow.is_failure_exception(exc):
        return False
    if is_cancelled_exception(exc) or is_non_retryable(exc) or not workflow_retries():
        return False
    policy = workflow.info().retry_policy
    kind = exc.type if isinstance(exc, ApplicationError) else type(exc).__name__
    return policy is None or kind not in (policy.non_retryable_error_types or ())


def _described(name: str, description: str, metadata: Mapping[str, Any] | None) -> Json:
    found = {"name": name, "description": description, "metadata": dict(metadata or {})}
    return {key: each for key, each in found.items() if each}


class FollowUp:
    """A further message of the client.

    Attributes:
        message: The message, as A2A writes it in JSON.
    """

    def __init__(self, message: Json) -> None:
        self.message = message

    @property
    def text(self) -> str:
        """Its text parts, joined by line breaks."""
        return text_of(self.message)
