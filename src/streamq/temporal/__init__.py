"""Streaming from Temporal activities, and reading their streams.

On the worker: :class:`StreamqPlugin` and :func:`streaming_activity`. Outside: :func:`subscribe`.
The workflow ``streamq.Stream`` runs any streaming activity by name; ``streamq.Sweep`` puts away
what crashed producers left.
"""

from streamq._sweep import SweepFinding, SweepRequest, SweepSummary

from ._activity import streaming_activity
from ._names import DEFAULT_TOPIC, stream_name, stream_topic
from ._plugin import StreamqPlugin
from ._poll import POLL_ACTIVITY, PollRequest, PollResult, poll
from ._request import StreamProgress, StreamRequest, StreamResult
from ._seal import SEAL_ACTIVITY, SealRequest, seal
from ._subscribe import Subscription, subscribe
from ._sweep import SWEEP_WORKFLOW, SweepWorkflow
from ._sweep_schedule import schedule_sweep, unschedule_sweep
from ._workflow import STREAM_WORKFLOW, StreamWorkflow

__all__ = [
    "DEFAULT_TOPIC",
    "POLL_ACTIVITY",
    "SEAL_ACTIVITY",
    "STREAM_WORKFLOW",
    "SWEEP_WORKFLOW",
    "PollRequest",
    "PollResult",
    "SealRequest",
    "StreamProgress",
    "StreamRequest",
    "StreamResult",
    "StreamWorkflow",
    "StreamqPlugin",
    "Subscription",
    "SweepFinding",
    "SweepRequest",
    "SweepSummary",
    "SweepWorkflow",
    "poll",
    "schedule_sweep",
    "seal",
    "stream_name",
    "stream_topic",
    "streaming_activity",
    "subscribe",
    "unschedule_sweep",
]
