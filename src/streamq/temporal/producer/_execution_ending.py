"""Asks Temporal how an execution ended while its activity still ran, and seals accordingly.

Temporal then states only that it does not know the attempt any more. An execution is the workflow
that scheduled the activity, or the activity itself if a client started it.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio.client import Client

from streamq._executions import execution_of
from streamq.temporal._activity_runs import activity_ending
from streamq.temporal._workflow_runs import has_chain_ended
from streamq.writing._writer import StreamWriter

_FAILED = {"TIMED_OUT": "TimeoutError", "FAILED": "ActivityError"}
"""Type of the error that readers get, for the states that are failures."""


@dataclass(frozen=True, slots=True)
class ExecutionEnding:
    """How the streams of an attempt end that Temporal no longer waits for.

    Attributes:
        state: State of the seal.
        message: Message for readers.
        error_type: With ``ERROR``, type of the failure for readers.
    """

    state: str
    message: str
    error_type: str = ""

    async def seal(self, writer: StreamWriter[Any]) -> None:
        """Seal a stream."""
        if self.state == "ERROR":
            await writer.fail(self.message, error_type=self.error_type)
        else:
            await writer.cancel(self.message)


async def ending_of_execution(client: Client, stream: str) -> ExecutionEnding | None:
    """Return how the execution ended after which a stream is named.

    Returns:
        ``None`` if it has not ended, so that another attempt follows or writes already, or if
        Temporal does not answer.
    """
    execution = execution_of(stream)
    if execution is None:
        return None
    if execution.kind == "workflow":
        if await has_chain_ended(client, execution.id, execution.run_id):
            return ExecutionEnding("CANCELLED", "the workflow has ended")
        return None
    status = await activity_ending(client, execution.id, execution.run_id)
    if status is None:
        return None
    message = f"the activity has ended ({status})"
    error_type = _FAILED.get(status)
    if error_type is None:
        return ExecutionEnding("CANCELLED", message)
    return ExecutionEnding("ERROR", message, error_type)
