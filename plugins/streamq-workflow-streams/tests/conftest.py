"""Fixtures: a Temporal server and a worker for hosts, in processes that these tests start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamq.devserver import FAST, TemporalDevServer
from streamq_workflow_streams import WorkflowStreamsSettings
from streamq_workflow_streams.embedded import EmbeddedHosts

_DYNAMIC_CONFIG = {
    **FAST,
    # The default is 4,096. With 200 a host continues as new several times within a test.
    "limit.historyCount.suggestContinueAsNew": "200",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDevServer]:
    """Return a server that keeps its workflows in a file, with a worker for hosts."""
    database = tmp_path_factory.mktemp("temporal") / "temporal.db"
    with (
        TemporalDevServer(database=database, dynamic_config=_DYNAMIC_CONFIG) as running,
        EmbeddedHosts(running.address, WorkflowStreamsSettings()),
    ):
        yield running
