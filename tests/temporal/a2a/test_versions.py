"""Agents on workers with worker versioning."""

from __future__ import annotations

from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig
from tests.temporal.a2a.agents import write
from tests.temporal.a2a.replicas import Stage

from streamq.a2a import AGENT_WORKFLOW, AgentPlugin
from streamq.a2a._push_config import PUSH_WORKFLOW
from streamq.temporal import StreamqPlugin


async def test_a_worker_with_versioning_takes_the_agents_workflows(stage: Stage) -> None:
    """Such a worker refuses a workflow that does not say how it is versioned."""
    plugins = [StreamqPlugin(stage.queue, stage.settings), AgentPlugin()]
    version = WorkerDeploymentVersion(deployment_name="agents", build_id="1")
    worker = Worker(
        stage.client,
        task_queue=f"versioned-{stage.task_queue}",
        activities=[write],
        plugins=plugins,
        deployment_config=WorkerDeploymentConfig(version=version, use_worker_versioning=True),
    )
    workflows = worker.config(active_config=True)["workflows"]
    names = [getattr(each, "__temporal_workflow_definition").name for each in workflows]
    assert names.count(AGENT_WORKFLOW) == names.count(PUSH_WORKFLOW) == 1
