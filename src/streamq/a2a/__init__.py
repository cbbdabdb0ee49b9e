"""Makes a Temporal workflow an A2A task: what workers and workflows need.

A worker needs :class:`AgentPlugin` beside ``StreamqPlugin``. An agent of one streaming activity
needs nothing else; a workflow of its own uses :class:`AgentTask`. None of it imports ``a2a-sdk``:
what serves clients is :mod:`streamq.a2a.server`,
and :mod:`streamq.a2a.client` follows a task.

Design: docs/design/a2a.md.
"""

from ._values import AgentValue, ArtifactNote, FileContent, FileReference, StatusNote
from .worker._input import TaskInput
from .worker._plugin import AgentPlugin
from .worker._task import AgentTask, FollowUp
from .worker._workflow import AGENT_WORKFLOW, AgentTaskWorkflow

__all__ = [
    "AGENT_WORKFLOW",
    "AgentPlugin",
    "AgentTask",
    "AgentTaskWorkflow",
    "AgentValue",
    "ArtifactNote",
    "FileContent",
    "FileReference",
    "FollowUp",
    "StatusNote",
    "TaskInput",
]
