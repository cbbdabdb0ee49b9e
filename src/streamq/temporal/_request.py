"""What ``streamq.Stream`` is asked for and answers: plain JSON for other SDKs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError

from streamq._errors import ConfigurationError
from streamq._settings import did_you_mean

from ._names import DEFAULT_TOPIC, check_topic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

LONGEST_WINDOW_SECONDS = 900.0


@dataclass(frozen=True)
class StreamRequest:
    """Input of the workflow; plain JSON for other SDKs.

    Attributes:
        activity: Name of the streaming activity.
        args: Its arguments.
        topic: Which topic it writes; wins over the one given to ``@streaming_activity``.
        delivery: ``none``: chunks do not pass through Temporal and the history has the same length
            whatever is streamed; read with :func:`subscribe` or the gateway. ``poll``: the workflow
            follows the stream while it is written, for its queries.
        task_queue: Where the activity runs, by default the workflow's task queue.
        start_to_close_seconds: Longest time of one attempt.
        heartbeat_seconds: How soon a dead worker is noticed. Cancellation takes up to 0.8 times
            that: the SDK sends heartbeats no more often.
        max_attempts: Most attempts; 0 is no limit.
        window_seconds: With ``poll``, how long a poll collects events; each poll costs about six
            history events.
    """

    activity: str
    args: list[Any] = field(default_factory=list)
    topic: str = DEFAULT_TOPIC
    delivery: Literal["none", "poll"] = "none"
    task_queue: str | None = None
    start_to_close_seconds: float = 3_600.0
    heartbeat_seconds: float = 10.0
    max_attempts: int = 0
    window_seconds: float = 0.2


@dataclass(frozen=True)
class StreamProgress:
    """Answer of the query ``progress``; with delivery ``none`` only the name is known.

    Attributes:
        stream: Name of the stream.
        chunks: Chunks that count: those after the last reset.
        bytes: Their bytes, as stored.
        attempt: The newest attempt seen, 0 before the first event.
        resets: How often readers were told to forget what they saw.
        sealed: Whether the stream has ended.
        cursor: Place after the last event seen; ``None`` before the first poll.
        carries_values: Whether events still pass through the history; see
            :class:`StreamWorkflow`.
        error: Why the stream is no longer followed, though the activity runs on: a poll failed for
            good, because of trimmed events, say.
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
        chunks: Chunks of the final attempt; ``None`` with delivery ``none``.
        bytes: Their bytes, as stored; ``None`` with delivery ``none``.
        resets: How often the stream started over; ``None`` with delivery ``none``.
        error: Why the stream was not followed to its end, so that the numbers are too small.
    """

    result: Any
    stream: str
    chunks: int | None = None
    bytes: int | None = None
    resets: int | None = None
    error: str | None = None


def read_request(data: dict[str, Any] | StreamRequest) -> StreamRequest:
    """Return the request that Temporal handed over as plain data.

    Raises:
        ApplicationError: A field is unknown, missing or makes no sense; not retryable.
    """
    try:
        request = data if isinstance(data, StreamRequest) else from_json(StreamRequest, data)
        check_topic(request.topic)
    except ConfigurationError as exc:
        raise invalid_request(str(exc)) from None
    if request.start_to_close_seconds <= 0 or request.heartbeat_seconds <= 0:
        raise invalid_request("start_to_close_seconds and heartbeat_seconds must be positive")
    if request.max_attempts < 0 or not 0 <= request.window_seconds <= LONGEST_WINDOW_SECONDS:
        raise invalid_request(
            "max_attempts must not be negative, and window_seconds must be within 0 to "
            f"{LONGEST_WINDOW_SECONDS:g}"
        )
    return request


def from_json(kind: type[R], data: dict[str, Any]) -> R:
    """Return plain data as the dataclass that it is meant for.

    Raises:
        ConfigurationError: A field is unknown, missing or of another type.
    """
    known = [known.name for known in dataclasses.fields(kind)]
    for name in data:
        if name not in known:
            raise ConfigurationError(f"unknown field {name!r}{did_you_mean(name, known)}")
    if not isinstance(data.get("args", []), list):  # a string would pass as a sequence
        raise ConfigurationError(f"args must be a list, not {data['args']!r}")
    try:
        request: R = value_to_type(kind, data)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{exc}: {exc.__cause__ or f'see {kind.__name__}'}") from None
    return request


def invalid_request(message: str) -> ApplicationError:
    """Return the failure of a workflow that was asked for nonsense."""
    return ApplicationError(
        f"invalid request: {message}", type="ConfigurationError", non_retryable=True
    )
