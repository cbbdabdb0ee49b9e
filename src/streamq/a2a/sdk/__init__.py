"""Lets the SDK's own request handler run on streamq: for servers that keep it.

Needs ``a2a-sdk`` (``pip install "streamq[a2a]"``). :class:`QueueTaskStore` and
:class:`QueueTaskEventStream` are the two interfaces of the SDK's cluster mode over a queue: tasks
and events are seen by all replicas. :class:`WorkflowExecutor` is an executor whose work is a
workflow, which outlives the replica.

* ``_entry``: what one write of a task stores; ``_history``: a task as its entries describe it;
* ``_journal``: the streams of tasks: appending to them with a version, and reading them;
* ``_store``, ``_listing``, ``_event_stream``: the interfaces of the SDK;
* ``_executor``, ``_forwarding``: runs workflows.

Design: docs/design/a2a.md.
"""

from ._event_stream import QueueTaskEventStream
from ._executor import WorkflowExecutor
from ._store import QueueTaskStore

__all__ = ["QueueTaskEventStream", "QueueTaskStore", "WorkflowExecutor"]
