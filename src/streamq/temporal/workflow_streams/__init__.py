"""The names of ``temporalio.contrib.workflow_streams``, over a streamq backend.

Code written for that package changes its import line and nothing else::

    from streamq.temporal.workflow_streams import WorkflowStream, WorkflowStreamClient

Workers need :class:`streamq.temporal.StreamqPlugin`. One log per workflow, global offsets, topics
as filters, many publishers, exactly-once batches: as there. What differs:

* Nothing is kept in the workflow. ``WorkflowStream`` publishes by the activity ``streamq.publish``,
  once for everything that is published while the last one was under way; a workflow that ends waits
  for it, and one that continues as new hands over, by its state, what has not arrived. External
  publishers send no signals, and subscribers no updates.
* The order between items of the workflow and of its activities is not kept; within each it is.
* Items go away with the stream's time to live, not with the workflow's history. ``truncate``
  changes nothing.
* A number may be missing between two offsets, where a batch was sent twice.
* ``poll_cooldown`` means nothing: items are pushed.
* A subscription reads the log from its beginning, and passes over what comes before its offset.
* Publishers of one workflow take turns: each takes the log over when it has something to send. That
  is made for batches of several publishers, not for many that flush every item.
* The log is never sealed, as there: a subscription ends when the workflow has.
"""

from ._client import TopicHandle, WorkflowStreamClient
from ._items import PublishEntry, PublishRequest, WorkflowStreamItem, WorkflowStreamState
from ._publish import PUBLISH_ACTIVITY, publish
from ._workflow_stream import WorkflowStream, WorkflowTopicHandle

__all__ = [
    "PUBLISH_ACTIVITY",
    "PublishEntry",
    "PublishRequest",
    "TopicHandle",
    "WorkflowStream",
    "WorkflowStreamClient",
    "WorkflowStreamItem",
    "WorkflowStreamState",
    "WorkflowTopicHandle",
    "publish",
]
