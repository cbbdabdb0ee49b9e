"""Names the streams of a workflow: one name for every attempt, retry and continued run.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

import hashlib

from streamq._errors import ConfigurationError

DEFAULT_TOPIC = "default"

LONGEST_NAME_BYTES = 1_000
"""Longest workflow id, or other name, that a Temporal server takes by default."""


def stream_name(workflow_id: str, first_execution_run_id: str, topic: str = DEFAULT_TOPIC) -> str:
    """Return the name of a stream: ``{workflow_id}/{first_execution_run_id}/{topic}``.

    It stays the same for every attempt of the activity, for workflow retries, resets and
    continue-as-new. It differs when the workflow id is used again, and for each firing of a cron
    schedule.

    From a handle or an id, :func:`streamq.temporal.find_stream_name` returns the name. Do not pass
    a handle's ``first_execution_run_id`` here: where a start attached to a running workflow, many
    servers and SDKs give the current run there, and a firing of a cron schedule has another first
    run. In workflow code :func:`streamq.temporal.workflow_stream_name` returns the name.

    Args:
        workflow_id: Id of the workflow; it may contain ``/``.
        first_execution_run_id: Run id of the first run of the chain: of the workflow's first run,
            or with a cron schedule of the firing's first run.
        topic: Which of the workflow's streams: any text without ``/``.

    Raises:
        ConfigurationError: The topic is not usable, or an id is empty or not valid Unicode.
    """
    check_topic(topic)
    if not workflow_id or not first_execution_run_id:
        raise ConfigurationError(
            f"workflow id {workflow_id!r} and first execution run id {first_execution_run_id!r} "
            "must not be empty"
        )
    if not _is_encodable(workflow_id):
        raise ConfigurationError(
            f"workflow id {workflow_id!r} has a lone surrogate, which is no character; Temporal "
            "takes none, either"
        )
    return f"{workflow_id}/{first_execution_run_id}/{topic}"


def producer_id(stream: str) -> str:
    """Return the id of the ``streamq.Produce`` that writes a stream.

    It is the stream's name. A name that is too long for an id is shortened, and ends in its digest.
    """
    data = stream.encode()
    if len(data) <= LONGEST_NAME_BYTES:
        return stream
    end = f"~{hashlib.sha256(data).hexdigest()}"
    return data[: LONGEST_NAME_BYTES - len(end)].decode(errors="ignore") + end


def check_topic(topic: str) -> str:
    """Return the topic if it is usable.

    Raises:
        ConfigurationError: It is not text, empty, contains ``/`` or cannot be encoded as UTF-8.
    """
    if not isinstance(topic, str) or not topic or "/" in topic or not _is_encodable(topic):
        raise ConfigurationError(
            f"topic {topic!r} must be text without '/' and not empty, and valid Unicode"
        )
    return topic


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
