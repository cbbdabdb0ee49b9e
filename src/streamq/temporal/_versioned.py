"""The plugin's workflows for workers with worker versioning.

Such a worker refuses a workflow that does not say how it is versioned, and a server refuses a
workflow task that says so and comes from any other worker. The definition is fixed where a class is
decorated, so there are two classes of each workflow; :data:`VERSIONED` tells the plugin which.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, VersioningBehavior

from streamq._sweep import SweepRequest, SweepSummary

from .generic._request import StreamResult
from .generic._workflow import STREAM_WORKFLOW, StreamWorkflow
from .sweeping._workflow import SWEEP_WORKFLOW, SweepWorkflow
from .workflow._produce import PRODUCE_WORKFLOW, ProduceRequest, ProduceWorkflow


@workflow.defn(name=STREAM_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedStreamWorkflow(StreamWorkflow):
    """Stays with the version that began the stream, with its activity."""

    @workflow.run
    async def run(self, request: Any = None, state: Any = None) -> StreamResult:
        """Run as the base class does."""
        return await super().run(request, state)


@workflow.defn(name=PRODUCE_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedProduceWorkflow(ProduceWorkflow):
    """Stays with the version that began the stream, with its activity."""

    @workflow.run
    async def run(self, request: ProduceRequest) -> RawValue:
        """Run as the base class does."""
        return await super().run(request)


@workflow.defn(name=SWEEP_WORKFLOW, versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class UpgradingSweepWorkflow(SweepWorkflow):
    """A schedule goes on for years: it runs with whatever version is current."""

    @workflow.run
    async def run(self, request: dict[str, Any] | SweepRequest | None = None) -> SweepSummary:
        """Run as the base class does."""
        return await super().run(request)


VERSIONED: dict[type, type] = {
    StreamWorkflow: PinnedStreamWorkflow,
    ProduceWorkflow: PinnedProduceWorkflow,
    SweepWorkflow: UpgradingSweepWorkflow,
}
"""What a worker with versioning gets instead of each workflow of the plugin."""
