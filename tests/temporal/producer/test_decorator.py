"""Tests ``@streaming_activity`` at decoration time, and the names and epochs behind it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest
from temporalio import workflow
from temporalio.activity import Info, _Definition
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from streamq import BlockingStreamWriter, ConfigurationError, OnRetry, StreamWriter
from streamq.temporal import stream_name, streaming_activity
from streamq.temporal._failure import is_final
from streamq.temporal.activities._epoch import attempt_epoch
from streamq.temporal.producer._signature import spec_of

TEN_SECONDS = timedelta(seconds=10)
NAMED = ApplicationError("x", type="T")


@streaming_activity
async def first(stream: StreamWriter, prompt: str, times: int = 1) -> bytes:
    return b""


@streaming_activity(topic="tokens", on_retry=OnRetry.RESUME)
async def last(prompt: str, stream: StreamWriter) -> int:
    return 1


@streaming_activity(name="renamed")
async def keyword(prompt: str, *, stream: StreamWriter) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "name", "arguments", "result"),
    [
        (first, "first", [str, int], bytes),
        (last, "last", [str], int),
        (keyword, "renamed", [str], float),
    ],
)
def test_temporal_sees_all_parameters_but_the_writer(
    function: Any, name: str, arguments: list[type], result: type
) -> None:
    """Payloads are converted by these types; the writer is not one of the arguments."""
    definition = _Definition.must_from_callable(function)
    assert definition.name == name
    assert definition.arg_types == arguments
    assert definition.ret_type == result
    assert "stream" not in inspect.signature(function).parameters


def test_function_that_cannot_stream_is_refused_at_definition() -> None:
    """Mistakes are reported at import, with the remedy."""

    async def silent(prompt: str) -> None: ...

    def synchronous(stream: StreamWriter) -> None: ...

    async def asynchronous(stream: BlockingStreamWriter) -> None: ...

    with pytest.raises(TypeError, match="silent needs a parameter 'stream: StreamWriter'"):
        streaming_activity(silent)
    with pytest.raises(TypeError, match="'stream' is a BlockingStreamWriter, not a StreamWriter"):
        streaming_activity(synchronous)
    with pytest.raises(TypeError, match="'stream' is a StreamWriter, not a BlockingStreamWriter"):
        streaming_activity(asynchronous)
    with pytest.raises(ConfigurationError, match="a/b"):
        streaming_activity(topic="a/b")


def test_generator_without_return_annotation_may_return_any_result() -> None:
    """If None were assumed, another result would fail the workflow that awaits it."""

    def unannotated(count):  # type: ignore[no-untyped-def]
        yield count
        return "top"

    def evaluated_by_type_checkers_only(count: int) -> Nowhere[int]:  # type: ignore[name-defined]  # noqa: F821
        yield count
        return "top"

    def climbs(count: int) -> Generator[int, None, str]:
        yield count
        return "top"

    def walks(count: int) -> Iterator[int]:
        yield count

    for function, result in (
        (unannotated, None),
        (evaluated_by_type_checkers_only, None),
        (climbs, str),
        (walks, type(None)),
    ):
        shown: Any = streaming_activity(function)
        assert _Definition.must_from_callable(shown).ret_type is result


def test_parameter_named_stream_that_is_no_writer_is_refused() -> None:
    """Clients of models take ``stream=True``; a writer in its place would be true as well."""

    async def generate(prompt: str, stream: bool = True) -> AsyncIterator[str]:
        yield prompt

    async def optional(prompt: str, stream: int | None = None) -> None: ...

    for function in (generate, optional):
        with pytest.raises(TypeError, match="another name"):
            streaming_activity(function)


async def test_writers_may_have_a_default() -> None:
    """``= None`` lets a unit test omit a writer that it does not check; Temporal never sees it."""

    @streaming_activity
    async def produce(
        prompt: str, stream: StreamWriter[str] | None = None, logs: StreamWriter | None = None
    ) -> None: ...

    found = spec_of(produce)
    assert found is not None
    assert found.writers == ("stream", "logs")
    assert found.chunk_type is str
    shown: Any = produce
    assert _Definition.must_from_callable(shown).arg_types == [str]
    with pytest.raises(TypeError, match="pass logs= too"):
        await shown("prompt", stream=None)


async def types_are_checked() -> None:
    """Never run: mypy verifies it, including each ignored error."""
    start = timedelta(seconds=1)
    assert_type(await workflow.execute_activity(last, "p", start_to_close_timeout=start), int)
    assert_type(await workflow.execute_activity(keyword, "p", start_to_close_timeout=start), float)
    assert_type(
        await workflow.execute_activity(first, args=["p", 1], start_to_close_timeout=start), bytes
    )
    await workflow.execute_activity(last, 1, start_to_close_timeout=start)  # type: ignore[misc]
    await last("p", streams=None)  # type: ignore[call-overload]
    await first("p", 1, None)  # type: ignore[call-overload]


def test_stream_name_is_computable_from_a_handle() -> None:
    """A handle is enough to name the stream; a topic cannot reach into another workflow's."""
    assert stream_name("order/7", "run", "tokens") == "order/7/run/tokens"
    for topic in ("", "a/b", "a\ud800b"):
        with pytest.raises(ConfigurationError, match="topic"):
            stream_name("wf", "run", topic)
    with pytest.raises(ConfigurationError, match="must not be empty"):
        stream_name("wf", "")


def info(**changes: Any) -> Info:
    return replace(ActivityEnvironment.default_info(), **changes)


def test_epochs_grow_with_every_run_of_the_producer() -> None:
    """Another scheduling has a newer epoch even though its attempt number starts at 1 again."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    later = now + timedelta(seconds=1)
    # The many in one moment are those of a local activity: all have the time of the first.
    attempts = [(now, 1), (now, 2), (now, 999), (now, 1_000), (now, 1_001), (later, 1)]
    epochs = [
        attempt_epoch(info(current_attempt_scheduled_time=time, attempt=attempt))
        for time, attempt in attempts
    ]
    assert epochs == sorted(set(epochs))
    assert epochs[-1] < 2**53


@pytest.mark.parametrize(
    ("error", "changes", "elapsed", "expected"),
    [
        (ValueError(), {}, 0, False),
        (ApplicationError("x", non_retryable=True), {}, 0, True),
        (ValueError(), {"policy": {"non_retryable_error_types": ["ValueError"]}}, 0, True),
        (
            ApplicationError("x", type="T"),
            {"policy": {"non_retryable_error_types": ["T"]}},
            0,
            True,
        ),
        (ValueError(), {"policy": {"maximum_attempts": 3}, "attempt": 2}, 0, False),
        (ValueError(), {"policy": {"maximum_attempts": 3}, "attempt": 3}, 0, True),
        (ValueError(), {"schedule_to_close_timeout": TEN_SECONDS}, 8.5, False),
        (ValueError(), {"schedule_to_close_timeout": TEN_SECONDS}, 9.5, True),
        (ValueError(), {"schedule_to_close_timeout": TEN_SECONDS, "attempt": 5}, 0, True),
        (
            ApplicationError("x", next_retry_delay=timedelta(seconds=1)),
            {"schedule_to_close_timeout": TEN_SECONDS, "attempt": 5},
            0,
            False,
        ),
        (ValueError(), {"retry_policy": None}, 0, False),
    ],
)
def test_final_failures_are_those_the_server_does_not_retry(
    error: Exception, changes: dict[str, Any], elapsed: float, expected: bool
) -> None:
    """Sealing too early loses the next attempt; too late leaves readers without an ending."""
    changes = dict(changes)
    policy = RetryPolicy(**changes.pop("policy", {}))
    environment = ActivityEnvironment()
    now = datetime(2026, 11, 22, tzinfo=UTC)
    environment.info = info(
        **{
            "retry_policy": policy,
            "scheduled_time": now,
            "started_time": now,
            "schedule_to_close_timeout": None,
        }
        | changes
    )

    def judge() -> bool:
        return is_final(error, environment.info, timedelta(seconds=elapsed))

    assert environment.run(judge) is expected
