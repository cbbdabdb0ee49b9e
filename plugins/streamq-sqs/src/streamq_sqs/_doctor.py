"""Reports whether SQS can be used, for ``streamq doctor``.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamq.driver import Finding

from ._settings import SqsSettings


def findings_of_open(settings: SqsSettings) -> Sequence[Finding]:
    """Return the findings after a queue was opened: opening lists queues."""
    kind = "FIFO" if settings.fifo else "standard"
    return (
        Finding("SQS", True, "it answers, and lets us list queues"),
        Finding("queues", True, f"{kind}, made when streams are opened; try --write"),
    )
