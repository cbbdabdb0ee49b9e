"""Defines the plugin by which a worker runs agents.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from ._collect import collect
from ._push import push
from ._push_workflow import PinnedPushWorkflow, PushWorkflow
from ._tell import tell
from ._workflow import AgentTaskWorkflow, PinnedAgentTaskWorkflow

_ACTIVITIES: tuple[Callable[..., Any], ...] = (collect, push, tell)
_WORKFLOWS: dict[type, type] = {
    AgentTaskWorkflow: PinnedAgentTaskWorkflow,
    PushWorkflow: PinnedPushWorkflow,
}
"""Each with the one that takes its place with worker versioning."""


class AgentPlugin(SimplePlugin):
    """Lets a worker run A2A tasks: use it beside ``StreamqPlugin``.

    It registers the workflows ``streamq.AgentTask`` and ``streamq.A2APush``, and the activities
    whose names begin with ``streamq.a2a.``, and passes ``a2a`` through the workflow sandbox, so
    that a module may have a workflow and its agent's card. Like
    :class:`streamq.temporal.StreamqPlugin`, it may be given to the client or to the worker.
    """

    def __init__(self) -> None:
        super().__init__(
            "streamq.AgentPlugin",
            activities=_with_activities,
            workflows=_with_workflows,
            workflow_runner=_pass_through,
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add workflows and activities; with worker versioning, the workflows are pinned."""
        config = super().configure_worker(config)
        deployment = config.get("deployment_config")
        if deployment is not None and deployment.use_worker_versioning:
            config["workflows"] = [_WORKFLOWS.get(each, each) for each in config["workflows"]]
        return config


# A plugin that was passed to both the client and the worker is applied twice: add everything once.


def _with_activities(
    existing: Sequence[Callable[..., Any]] | None,
) -> Sequence[Callable[..., Any]]:
    found = list(existing or ())
    return [*found, *(each for each in _ACTIVITIES if each not in found)]


def _with_workflows(existing: Sequence[type] | None) -> Sequence[type]:
    found = list(existing or ())
    missing = [
        each for each, pinned in _WORKFLOWS.items() if each not in found and pinned not in found
    ]
    return [*found, *missing]


def _pass_through(existing: WorkflowRunner | None) -> WorkflowRunner:
    if existing is None:
        existing = SandboxedWorkflowRunner()
    if not isinstance(existing, SandboxedWorkflowRunner):
        return existing
    restrictions = existing.restrictions.with_passthrough_modules("streamq", "a2a")
    return dataclasses.replace(existing, restrictions=restrictions)
