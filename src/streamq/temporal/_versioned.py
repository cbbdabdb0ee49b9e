"""Defines the plugin's workflows for workers with worker versioning.

Such a worker refuses a workflow without a versioning behavior, and the server refuses a versioning
behavior from any other worker. The decorator of a class fixes it, so that each workflow has two
classes; :data:`VERSIONED` maps one to the other.

Design: docs/design/temporal-generic.md.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, VersioningBehavior

from streamq._sweep import SweepRequest, SweepSummary

from .generic._request import StreamResult
from .generic._workflow import STREAM_WORKFLOW, StreamWorkflow
from .sweeping._workflow import SWEEP_WORKFLOW, SweepWorkflow
from .workflow._produce_workflow import PRODUCE_WORKFLOW, ProduceRequest, ProduceWorkflow


@workflow.defn(name=STREAM_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedStreamWorkflow(StreamWorkflow):
    """Stays with the version that began the stream, as its activity does."""

    @workflow.run
    async def run(self, request: Any = None, state: Any = None) -> StreamResult:
        """Run as the base class does."""
        return await super().run(request, state)


@workflow.defn(name=PRODUCE_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class PinnedProduceWorkflow(ProduceWorkflow):
    """Stays with the version that began the stream, as its activity does."""

    @workflow.run
    async def run(self, request: ProduceRequest) -> RawValue:
        """Run as the base class does."""
        return await super().run(request)


@workflow.defn(name=SWEEP_WORKFLOW, versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class UpgradingSweepWorkflow(SweepWorkflow):
    """Runs with the current version, since its schedule runs for years."""

    @workflow.run
    async def run(self, request: dict[str, Any] | SweepRequest | None = None) -> SweepSummary:
        """Run as the base class does."""
        return await super().run(request)


VERSIONED: dict[type, type] = {
    StreamWorkflow: PinnedStreamWorkflow,
    ProduceWorkflow: PinnedProduceWorkflow,
    SweepWorkflow: UpgradingSweepWorkflow,
}
"""The class that a worker with versioning gets instead of each workflow of the plugin."""
