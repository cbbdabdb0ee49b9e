"""Names the states in which a task has ended, or waits for its client, as the SDK writes them.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.types.a2a_pb2 import TaskState

from ._entries import INTERRUPTED, TERMINAL

TERMINAL_STATES = frozenset(TaskState.Value(f"TASK_STATE_{each}") for each in TERMINAL)
INTERRUPTED_STATES = frozenset(TaskState.Value(f"TASK_STATE_{each}") for each in INTERRUPTED)
