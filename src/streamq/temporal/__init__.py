"""Streams what Temporal activities produce, and reads their streams.

On the worker: :class:`StreamqPlugin` and :func:`streaming_activity`. Outside: :func:`subscribe`.
The workflow ``streamq.Stream`` runs any streaming activity by name; ``streamq.Sweep`` ends and
removes the streams that crashed producers left.

This module is the facade. The rooms are named by where their code runs, from the top down:

* ``_plugin``, ``_interceptor``, ``_versioned``: the worker;
* ``_connect``, ``_subscribe``, ``_subscribe_topics``, ``_until_closed``, ``_execution_story``,
  ``_find_name``, ``_targets``, ``_reader_token``: any process outside of workers;
* ``generic/``: ``streamq.Stream``; ``sweeping/``: ``streamq.Sweep``; ``workflow_streams/``: the
  names of Temporal's Workflow Streams;
* ``workflow/``: workflow code;
* ``producer/``: the user's activities;
* ``activities/``: streamq's own activities;
* ``_names``, ``_origin``, ``_lineage``, ``_rpc``, ``_chains``, ``_workflow_runs``, ``_closing``,
  ``_activity_runs``, ``_activity_closing``, ``_patience``, ``_failure``, ``_input``,
  ``_event_json``, ``_serializer``, ``_tracing``: shared by all.

A module imports only from rooms below its own, and from ``streamq``.

Design: docs/design/temporal-producing.md, docs/design/temporal-reading.md.
"""

from streamq._sweep import SweepFinding, SweepRequest, SweepSummary

from ._activity_runs import activity_stream_name
from ._connect import connect
from ._execution_story import read_story
from ._find_name import find_stream_name
from ._names import DEFAULT_TOPIC, stream_name
from ._plugin import StreamqPlugin
from ._reader_token import ReaderToken, reader_token
from ._subscribe import Subscription, subscribe
from ._subscribe_topics import TopicEvent, TopicsSubscription, subscribe_topics
from ._tracing import trace_headers
from .activities._forward import (
    BATCH_SIGNAL,
    FORWARD_ACTIVITY,
    ForwardRequest,
    ForwardResult,
    forward,
)
from .activities._poll import poll
from .activities._poll_request import POLL_ACTIVITY, PollRequest, PollResult
from .activities._seal import SEAL_ACTIVITY, SealRequest, seal
from .activities._summarize import SUMMARY_ACTIVITY, StreamSummary, SummaryRequest, summarize
from .generic._request import StreamProgress, StreamRequest, StreamResult
from .generic._workflow import STREAM_WORKFLOW, StreamWorkflow
from .producer._decorator import streaming_activity
from .sweeping._schedule import schedule_sweep, unschedule_sweep
from .sweeping._workflow import SWEEP_WORKFLOW, SweepWorkflow
from .workflow._activity_stream import ActivityStream
from .workflow._chain import workflow_stream_name
from .workflow._handover import Handover
from .workflow._inbox import InboxState, StreamInbox
from .workflow._produce_workflow import PRODUCE_WORKFLOW, ProduceWorkflow
from .workflow._start_stream import StreamOptions, resume_stream, stream_activity
from .workflow._stream_topic import stream_topic

__all__ = [
    "BATCH_SIGNAL",
    "DEFAULT_TOPIC",
    "FORWARD_ACTIVITY",
    "POLL_ACTIVITY",
    "PRODUCE_WORKFLOW",
    "SEAL_ACTIVITY",
    "STREAM_WORKFLOW",
    "SUMMARY_ACTIVITY",
    "SWEEP_WORKFLOW",
    "ActivityStream",
    "ForwardRequest",
    "ForwardResult",
    "Handover",
    "InboxState",
    "PollRequest",
    "PollResult",
    "ProduceWorkflow",
    "ReaderToken",
    "SealRequest",
    "StreamInbox",
    "StreamOptions",
    "StreamProgress",
    "StreamRequest",
    "StreamResult",
    "StreamSummary",
    "StreamWorkflow",
    "StreamqPlugin",
    "Subscription",
    "SummaryRequest",
    "SweepFinding",
    "SweepRequest",
    "SweepSummary",
    "SweepWorkflow",
    "TopicEvent",
    "TopicsSubscription",
    "activity_stream_name",
    "connect",
    "find_stream_name",
    "forward",
    "poll",
    "read_story",
    "reader_token",
    "resume_stream",
    "schedule_sweep",
    "seal",
    "stream_activity",
    "stream_name",
    "stream_topic",
    "streaming_activity",
    "subscribe",
    "subscribe_topics",
    "summarize",
    "trace_headers",
    "unschedule_sweep",
    "workflow_stream_name",
]
