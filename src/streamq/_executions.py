"""Translates between a Temporal execution and the names of its streams.

The core has no Temporal, but a sweep needs to know after what a stream is named.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_ACTIVITY = "activity-"

# A run id has always been a UUID. Topics have no slash, ids may.
_STREAM = re.compile(
    rf"(?P<id>.+)/(?P<mark>{_ACTIVITY})?"
    r"(?P<run_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/[^/]+",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Execution:
    """Names an execution that has streams: a workflow's chain of runs, or a standalone activity.

    Attributes:
        kind: Which of both.
        id: Id of the workflow or of the activity.
        run_id: First run of the workflow's chain; run of the activity.
    """

    kind: Literal["workflow", "activity"]
    id: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id!r}"

    def stream_name(self, topic: str) -> str:
        """Return the name of one of its streams; neither ids nor topic are checked."""
        mark = _ACTIVITY if self.kind == "activity" else ""
        return f"{self.id}/{mark}{self.run_id}/{topic}"


def execution_of(name: str) -> Execution | None:
    """Return the execution that a stream is named after; ``None`` for any other name."""
    match = _STREAM.fullmatch(name)
    if match is None:
        return None
    return Execution("activity" if match["mark"] else "workflow", match["id"], match["run_id"])
