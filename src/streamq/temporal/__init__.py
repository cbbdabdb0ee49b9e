"""Streaming from Temporal activities, and reading their streams.

On the worker: :class:`StreamqPlugin` and :func:`streaming_activity`. Outside: :func:`subscribe`.
The workflow ``streamq.Stream`` runs any streaming activity by name; ``streamq.Sweep`` puts away
what crashed producers left.
"""

from streamq._sweep import SweepFinding, SweepRequest, SweepSummary

from ._activity import streaming_activity
from ._follow import ActivityStream, Handover, StreamOptions, resume_stream, stream_activity
from ._forward import BATCH_SIGNAL, FORWARD_ACTIVITY, ForwardRequest, ForwardResult, forward
from ._inbox import InboxState, StreamInbox
from ._names import DEFAULT_TOPIC, stream_name, stream_topic
from ._plugin import StreamqPlugin
from ._poll import POLL_ACTIVITY, PollRequest, PollResult, poll
from ._produce import PRODUCE_WORKFLOW, ProduceWorkflow
from ._request import StreamProgress, StreamRequest, StreamResult
from ._seal import SEAL_ACTIVITY, SealRequest, seal
from ._subscribe import Subscription, subscribe
from ._summary import SUMMARY_ACTIVITY, StreamSummary, SummaryRequest, summarize
from ._sweep import SWEEP_WORKFLOW, SweepWorkflow
from ._sweep_schedule import schedule_sweep, unschedule_sweep
from ._tracing import trace_headers
from ._workflow import STREAM_WORKFLOW, StreamWorkflow

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
    "forward",
    "poll",
    "resume_stream",
    "schedule_sweep",
    "seal",
    "stream_activity",
    "stream_name",
    "stream_topic",
    "streaming_activity",
    "subscribe",
    "summarize",
    "trace_headers",
    "unschedule_sweep",
]
