"""Carries, in a header, what an activity cannot know about the workflow that scheduled it.

The plugin's interceptor writes the header in workflow code and reads it before the activity runs.
Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

HEADER = "streamq"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an activity was scheduled, as far as ``activity.info()`` does not state it.

    Attributes:
        first_execution_run_id: First run of the workflow's chain; the activity knows the current
            run only. ``None`` if the workflow does not know it either.
        original_run_id: The current run, or the one that it was reset from.
        workflow_attempt: Which attempt of the workflow this is, from 1.
        workflow_retries: Whether the workflow will be retried if it fails.
        topic: Topic that the workflow chose for this call, if it chose one.
        workflow_id: Workflow that owns the stream, if that is not the one that scheduled the
            activity.
    """

    first_execution_run_id: str | None
    original_run_id: str
    workflow_attempt: int
    workflow_retries: bool
    topic: str | None = None
    workflow_id: str | None = None

    def to_headers(self, headers: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the headers with this origin added."""
        [payload] = PayloadConverter.default.to_payloads([dataclasses.asdict(self)])
        return {**headers, HEADER: payload}

    @classmethod
    def from_headers(cls, headers: Mapping[str, Payload]) -> Origin | None:
        """Return the origin from the headers; ``None`` if there is none, or it is unreadable."""
        payload = headers.get(HEADER)
        if payload is None:
            return None
        try:
            [data] = PayloadConverter.default.from_payloads([payload])
            return cls(**data)
        except Exception:  # noqa: BLE001 - another SDK may have written it: ask Temporal instead
            return None
