"""Defines and checks the input, result, progress and state of ``streamq.Stream``: plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from streamq._errors import ConfigurationError
from streamq.temporal._input import from_json, invalid_request
from streamq.temporal._names import DEFAULT_TOPIC, LONGEST_NAME_BYTES, check_topic

LONGEST_WINDOW_SECONDS = 900.0

_SHORTEST_SECONDS = 0.001
_LONGEST_SECONDS = 315_360_000.0  # ten years
_NUMBERS = (
    ("start_to_close_seconds", _SHORTEST_SECONDS, _LONGEST_SECONDS),
    ("heartbeat_seconds", _SHORTEST_SECONDS, _LONGEST_SECONDS),
    ("max_attempts", 0, 2**31 - 1),
    ("window_seconds", 0, LONGEST_WINDOW_SECONDS),
    ("progress_seconds", 0, _LONGEST_SECONDS),
)


@dataclass(frozen=True)
class StreamRequest:
    """Input of the workflow; plain JSON for other SDKs.

    Attributes:
        activity: Name of the streaming activity.
        args: Its arguments.
        topic: Topic that it writes; takes precedence over that of ``@streaming_activity``.
        delivery: ``none``: chunks do not pass through Temporal, and the history has the same length
            for any stream; read with :func:`subscribe` or the gateway. ``poll``: the workflow
            follows the stream while it is written, for its queries. ``signal``: the stream is sent
            to another workflow as signals.
        task_queue: Where the activity runs, by default the workflow's task queue.
        start_to_close_seconds: Longest time of one attempt.
        heartbeat_seconds: How soon a dead worker is noticed.
        max_attempts: Most attempts; 0 means no limit.
        window_seconds: How long a poll, or a signal, collects events; each poll costs about six
            history events, each signal one, and three in the target. The first chunk never waits.
        target_workflow_id: With ``signal``, the workflow that gets the signals.
        target_run_id: Run of that workflow, by default the one that is running.
        target_signal: The signal's name.
        progress_workflow_id: A workflow that gets progress signals at the end, and with ``poll``
            while the stream is followed; by default none.
        progress_signal: That signal's name; its argument is the answer of the query ``progress``.
        progress_seconds: Shortest interval of progress signals.
        summary: Whether to read the stream once more at the end, for counts and the digest.
        detached: With ``poll``, whether the activity runs in a workflow of its own,
            ``streamq.Produce``, so that this one can continue as new while it runs.
    """

    activity: str
    args: list[Any] = field(default_factory=list)
    topic: str = DEFAULT_TOPIC
    delivery: Literal["none", "poll", "signal"] = "none"
    task_queue: str | None = None
    start_to_close_seconds: float = 3_600.0
    heartbeat_seconds: float = 10.0
    max_attempts: int = 0
    window_seconds: float = 0.2
    target_workflow_id: str | None = None
    target_run_id: str | None = None
    target_signal: str = "streamq.batch"
    progress_workflow_id: str | None = None
    progress_signal: str = "streamq.progress"
    progress_seconds: float = 10.0
    summary: bool = True
    detached: bool = True


@dataclass(frozen=True)
class StreamProgress:
    """Answer of the query ``progress``.

    With delivery ``none`` and ``signal`` only the name is known before the end.

    Attributes:
        stream: Name of the stream.
        chunks: Number of chunks after the last reset.
        bytes: Their bytes, as stored.
        attempt: The newest attempt seen, 0 before the first event.
        resets: How often the stream started over, so that readers drop earlier chunks.
        sealed: Whether the stream has ended.
        cursor: Position after the last event seen; ``None`` before the first poll.
        carries_values: Whether events still pass through the history; see
            :class:`StreamWorkflow`.
        error: Why the stream is no longer followed while the activity continues: a poll failed
            without a retry, because of trimmed events for example.
    """

    stream: str
    chunks: int
    bytes: int
    attempt: int
    resets: int
    sealed: bool
    cursor: str | None
    carries_values: bool
    error: str | None


@dataclass(frozen=True)
class StreamResult:
    """Result of the workflow.

    Attributes:
        result: What the activity returned.
        stream: Name of the stream.
        chunks: Number of chunks of the final content: those after the last reset.
        bytes: Their bytes, as stored.
        attempts: Number of attempts that wrote the stream.
        resets: How often it started over.
        digest: SHA-256 of the final content, as :class:`StreamSummary` defines it.
        error: Why the stream was not followed, forwarded or counted to its end. Numbers are then
            too small or missing.

    Without ``summary`` there is no digest, and the numbers are ``None`` unless the delivery counts.
    """

    result: Any
    stream: str
    chunks: int | None = None
    bytes: int | None = None
    attempts: int | None = None
    resets: int | None = None
    digest: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class StreamState:
    """State that a run of the workflow passes to the next one when it continues as new.

    Attributes:
        cursor: Position after the last event that was counted.
        chunks: As in :class:`StreamProgress`.
        bytes: As in :class:`StreamProgress`.
        attempt: As in :class:`StreamProgress`.
        resets: As in :class:`StreamProgress`.
        recent: Answer of the query ``recent``.
    """

    cursor: str | None
    chunks: int
    bytes: int
    attempt: int
    resets: int
    recent: list[dict[str, Any]]


def read_request(data: object) -> StreamRequest:
    """Check the request that Temporal passes as plain data, and return it.

    A value that the server would refuse in a command is refused here: the server's refusal would
    not fail the workflow, but its task would be retried for ever.

    Raises:
        ApplicationError: A field is unknown, missing or invalid; not retryable.
    """
    try:
        request = data if isinstance(data, StreamRequest) else from_json(StreamRequest, data)
        check_topic(request.topic)
        for name in ("activity", "target_signal", "progress_signal"):
            _check_name(name, getattr(request, name))
        for name in ("task_queue", "target_workflow_id", "progress_workflow_id"):
            if getattr(request, name) is not None:
                _check_name(name, getattr(request, name))
        for name, least, most in _NUMBERS:
            if not least <= getattr(request, name) <= most:  # NaN neither
                raise ConfigurationError(
                    f"{name} must be within {least:.10g} to {most:.10g}, not "
                    f"{getattr(request, name)}"
                )
    except ConfigurationError as exc:
        raise invalid_request(str(exc)) from None
    if request.delivery == "signal" and not request.target_workflow_id:
        raise invalid_request(
            "delivery 'signal' needs target_workflow_id, the workflow that gets the signals"
        )
    return request


def read_state(data: object) -> StreamState | None:
    """Return the state that an earlier run passed as plain data.

    Raises:
        ApplicationError: The data is no such state; not retryable.
    """
    try:
        return data if data is None else from_json(StreamState, data)
    except ConfigurationError as exc:
        raise invalid_request(f"there is one input, not two; {exc}") from None


def _check_name(field: str, name: str) -> None:
    """Check a name or an id by the rules of the server.

    Raises:
        ConfigurationError: The server would refuse it.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= LONGEST_NAME_BYTES:
        raise ConfigurationError(
            f"{field} must be text of 1 to {LONGEST_NAME_BYTES} bytes in UTF-8, not {name[:100]!r}"
        )
    if field == "task_queue" and name.startswith("/_sys/"):
        raise ConfigurationError(f"task_queue {name[:100]!r} is reserved for the server itself")
