"""Provides the names of ``temporalio.contrib.workflow_streams`` over a streamq backend.

Code written for that package changes its import line and nothing else::

    from streamq.temporal.workflow_streams import WorkflowStream, WorkflowStreamClient

Workers need :class:`streamq.temporal.StreamqPlugin`. As in that package there are one log per
workflow, global offsets, topics as filters, many publishers, and exactly-once batches. What
differs:

* The workflow stores no items. ``WorkflowStream`` publishes by the activity ``streamq.publish``;
  one call sends all items that were published while the previous call ran. A workflow that ends
  waits for the last call. A workflow that continues as new passes items that have not arrived to
  the next run in its state. Publishers outside write to the backend and send the
  workflow no signals; subscribers read from the backend and send it no updates.
* The order between items of the workflow and items of its activities is not kept; within each it
  is.
* Items expire with the stream's time to live, not with the workflow's history. ``truncate`` does
  nothing.
* Offsets may have a gap where a batch was sent twice.
* ``poll_cooldown`` has no effect, since items are pushed.
* A subscription reads the log from its beginning, and skips items before its offset.
* Publishers of one workflow take turns: each takes over the log when it has items to send. That
  suits batches of a few publishers, and does not suit many publishers that flush every item.
* The log is never sealed, as in that package: a subscription ends when the workflow has ended.

Its modules:

* ``_workflow_stream``: publishes from workflow code;
* ``_sending``: sends items from workflow code, by an activity;
* ``_publish``: ``streamq.publish``, the activity that it calls;
* ``_client``: publishes and subscribes in activities and other processes;
* ``_shared_log``: appends to a log that has several publishers;
* ``_reading``: reads a log, each item once;
* ``_items``: the items, and how they are stored.

With ``StreamqPlugin(route_workflow_streams=True)`` programs for Workflow Streams need not be
changed, nor need Temporal's AI integrations, which publish there. That is done by:

* ``_routing``: takes what activities send by the SDK's client;
* ``_hosted``: passes on what the SDK's ``WorkflowStream`` of a workflow holds;
* ``_publication``: stores what one attempt of an activity publishes;
* ``_topic_stream``, ``_story``: the stream of a topic, which several calls write;
* ``_end_topics``: ends these streams with the workflow;
* ``_protocol``, ``_integrations``: what is known of the SDK and of integrations, and the checks
  when a worker starts.

Design: docs/design/workflow-streams.md.
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
