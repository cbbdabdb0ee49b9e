"""Carries, in a header of a continued run, to which chain of runs it belongs.

A cron schedule begins a new chain of runs with each firing. A run that a workflow continues as new
belongs to the chain of the run before it, which neither the server nor the SDK states.
Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

LINEAGE_HEADER = "streamq-lineage"


@dataclass(frozen=True, slots=True)
class Lineage:
    """The chain of a run that continues another one.

    Attributes:
        first_run_id: First run of the chain.
        continued_from: The run that was continued. The server may give the header to later firings
            as well, which continue another run.
    """

    first_run_id: str
    continued_from: str

    def to_headers(self, headers: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the headers with this one added."""
        [payload] = PayloadConverter.default.to_payloads([dataclasses.asdict(self)])
        return {**headers, LINEAGE_HEADER: payload}

    def holds(self, *, continued_from: str | None, cron_schedule: str | None, attempt: int) -> bool:
        """Whether it is the lineage of a run, and not of an earlier run whose header was copied."""
        if not cron_schedule:
            return True  # no firing can have come between, and a retry has its first run's header
        return attempt == 1 and continued_from == self.continued_from


def read_lineage(headers: Mapping[str, Payload]) -> Lineage | None:
    """Return the lineage from the headers of a run; ``None`` without one that can be read."""
    payload = headers.get(LINEAGE_HEADER)
    if payload is None:
        return None
    try:
        [data] = PayloadConverter.default.from_payloads([payload])
        return Lineage(**data)
    except Exception:  # noqa: BLE001 - it is encoded, or of a later version: ask Temporal instead
        return None
