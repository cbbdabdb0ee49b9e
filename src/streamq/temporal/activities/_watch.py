"""Runs ``streamq.watch`` and ``streamq.result``, which wait for the end of another workflow."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.converter import WorkflowSerializationContext

from streamq._errors import StreamqError
from streamq.temporal._closing import ClosingWatch
from streamq.temporal._failure import application_error, final_failure

from ._context import wait_without_slot

WATCH_ACTIVITY = "streamq.watch"
RESULT_ACTIVITY = "streamq.result"

DETACHED_BYTES = 1_500_000
"""Most bytes of arguments, or of a result, that pass through ``streamq.Produce``. As base64 they
stay below Temporal's limit of 2 MiB."""

_LONGEST_BEAT_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0


class ResultTooLargeError(Exception):
    """Type of the failure if a result is too large to be passed on; never raised itself."""


@dataclass(frozen=True)
class ChainRef:
    """A chain of runs; plain JSON.

    Attributes:
        workflow_id: Id of the workflow.
        first_run_id: First run of the chain.
    """

    workflow_id: str
    first_run_id: str


@dataclass(frozen=True)
class Outcome:
    """How a workflow ended; plain JSON.

    Attributes:
        status: In Temporal's terms: ``COMPLETED``, ``FAILED``, ``CANCELED``, ``TERMINATED``,
            ``TIMED_OUT``, ``NOT_FOUND``.
        result: With ``COMPLETED``, the payload in protobuf bytes as base64; ``None`` without one.
        failure: With ``FAILED``, the failure in the same form.
    """

    status: str
    result: str | None = None
    failure: str | None = None

    def payload(self) -> Payload | None:
        """Return the result as a payload."""
        return None if self.result is None else Payload.FromString(base64.b64decode(self.result))

    def failure_proto(self) -> Failure | None:
        """Return the failure."""
        return None if self.failure is None else Failure.FromString(base64.b64decode(self.failure))


@activity.defn(name=WATCH_ACTIVITY)
async def watch(chain: ChainRef) -> str:
    """Wait until a chain of runs has ended, and return its last state in Temporal's terms.

    Occupies no activity slot meanwhile, makes about one request a minute, and sends three
    heartbeats in a heartbeat timeout, at most 20 seconds apart.

    Raises:
        ApplicationError: Temporal refused, or stayed unreachable for five minutes.
    """
    watching = _watch(activity.client(), chain)
    return await wait_without_slot(watching, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _watch(client: Client, chain: ChainRef) -> str:
    try:
        closing = ClosingWatch(client, chain.workflow_id, patience_seconds=_PATIENCE_SECONDS)
        return await closing.wait_chain(chain.first_run_id)
    except StreamqError as exc:
        raise application_error(exc) from exc


@activity.defn(name=RESULT_ACTIVITY)
async def outcome(workflow_id: str) -> Outcome:
    """Wait until the newest run of a workflow has ended, and return its result or failure.

    Occupies no activity slot meanwhile.

    Raises:
        ApplicationError: Temporal refused, or stayed unreachable; ``ResultTooLargeError``: the
            result is too large to be passed on, which is not retried.
    """
    waiting = _outcome(activity.client(), workflow_id)
    return await wait_without_slot(waiting, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _outcome(client: Client, workflow_id: str) -> Outcome:
    try:
        return await _wait_outcome(client, workflow_id)
    except StreamqError as exc:
        raise application_error(exc) from exc


async def _wait_outcome(client: Client, workflow_id: str) -> Outcome:
    context = WorkflowSerializationContext(client.namespace, workflow_id)
    codec = client.data_converter.with_context(context).payload_codec
    closing = ClosingWatch(client, workflow_id, patience_seconds=_PATIENCE_SECONDS)
    event = await closing.wait_run(None)
    kind = event.WhichOneof("attributes") if event is not None else None
    if event is None or kind is None:
        return Outcome("NOT_FOUND")
    if kind == "workflow_execution_completed_event_attributes":
        payloads = list(event.workflow_execution_completed_event_attributes.result.payloads)
        if codec is not None:
            payloads = await codec.decode(payloads)
        size = sum(each.ByteSize() for each in payloads)
        if size > DETACHED_BYTES:
            raise final_failure(
                ResultTooLargeError,
                f"the result of workflow {workflow_id!r} has {size} bytes, more than can be passed "
                f"on ({DETACHED_BYTES}); let the activity return a reference to it, or do not "
                "detach it",
            )
        return Outcome("COMPLETED", _base64(payloads[0]) if payloads else None)
    if kind == "workflow_execution_failed_event_attributes":
        failure = event.workflow_execution_failed_event_attributes.failure
        if codec is not None:
            await codec.decode_failure(failure)
        return Outcome("FAILED", failure=_base64(failure))
    return Outcome(_OTHER_ENDINGS.get(kind, "NOT_FOUND"))


_OTHER_ENDINGS = {
    "workflow_execution_canceled_event_attributes": "CANCELED",
    "workflow_execution_terminated_event_attributes": "TERMINATED",
    "workflow_execution_timed_out_event_attributes": "TIMED_OUT",
}


def _base64(message: Payload | Failure) -> str:
    return base64.b64encode(message.SerializeToString()).decode("ascii")
