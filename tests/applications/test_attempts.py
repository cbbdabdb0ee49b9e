"""Records several attempts of one activity: what its readers see over all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from tests.applications.activities import (
    WORDS,
    Summary,
    count,
    fail,
    replay,
    resume,
    resume_in_thread,
    write,
    write_in_thread,
    yields,
    yields_in_thread,
)

from streamq import OnRetry, ReplayError, Reset, SealState, StreamWriter
from streamq.temporal import streaming_activity
from streamq.testing import ScriptedError, record

ALL = [f"Oslo {word}" for word in WORDS]


@pytest.mark.parametrize("function", [write, write_in_thread, yields, yields_in_thread])
async def test_restarting_attempt_voids_what_the_first_sent(function: Callable[..., Any]) -> None:
    """The author sees the reset that readers see."""
    recorded = await record(function, "Oslo", fail_after=[2, None])
    assert recorded.outline == [*ALL[:2], "RESET 2", *ALL, "END"]
    assert recorded.chunks == ALL
    assert recorded.resets == 1
    first, second = recorded.attempts
    assert isinstance(first.error, ScriptedError)
    assert isinstance(first.failure, ApplicationError)
    assert first.failure.type == "ScriptedError"
    assert first.sent == ALL[:2]
    assert first.is_retried
    assert second.has_completed


@pytest.mark.parametrize("function", [resume, resume_in_thread])
async def test_resuming_attempts_tell_one_story(function: Callable[..., Any]) -> None:
    """Three attempts, and each continues after the durable chunks of the ones before."""
    recorded = await record(function, "Oslo", fail_after=[1, 2, None])
    assert recorded.outline == [*ALL, "END"]
    assert [each.resumed_from for each in recorded.attempts] == [0, 1, 3]
    assert [each.sent for each in recorded.attempts] == [ALL[:1], ALL[1:3], ALL[3:]]


async def test_replaying_attempt_sends_the_same_chunks() -> None:
    """They are compared and stored once; a test sees that all were sent."""
    recorded = await record(replay, "Oslo", fail_after=[3, None])
    assert recorded.outline == [*ALL, "END"]
    assert recorded.sent == ALL


async def test_replaying_other_chunks_is_found() -> None:
    """The mistake that OnRetry.REPLAY forbids shows in the author's test, not in production."""
    recorded = await record(replay, "Oslo", earlier=["Rome the"])
    assert isinstance(recorded.error, ReplayError)
    assert recorded.ending is SealState.ERROR
    assert not recorded.is_retried


async def test_position_is_where_the_earlier_attempt_stood() -> None:
    """The activity itself is the earlier attempt, so that its chunks are of the right type."""
    recorded = await record(resume, "Oslo", attempt=2, position=3)
    assert recorded.sent == ALL[3:]
    assert recorded.chunks == ALL
    assert [each.number for each in recorded.attempts] == [1, 2]


async def test_earlier_chunks_can_be_given() -> None:
    """A model that answers otherwise each time cannot be asked for the first attempt's answer."""
    recorded = await record(resume, "Oslo", earlier=["Paris the", "Paris sea"])
    assert recorded.outline == ["Paris the", "Paris sea", *ALL[2:], "END"]
    [only] = recorded.attempts
    assert (only.number, only.resumed_from) == (2, 2)


@pytest.mark.parametrize("number", [2, 3])
async def test_number_of_the_attempt_is_the_one_that_the_function_sees(number: int) -> None:
    """Code that gives up, or takes a smaller model, at the third attempt is tested so."""

    @streaming_activity
    async def attempts(stream: StreamWriter[list[int]]) -> int:
        return stream.attempt

    recorded = await record(attempts, attempt=number)
    assert recorded.result == number
    assert recorded.attempts[-1].number == number
    counted = await record(count, 0, attempt=number)
    assert counted.result == number


async def test_heartbeat_details_reach_the_next_attempt() -> None:
    """The usual way to resume work that leaves no chunks."""
    recorded = await record(count, 4, fail_after=[2, None])
    assert recorded.outline == [0, 1, "RESET 2", 2, 3, "END"]
    given = await record(count, 4, attempt=2, heartbeat_details=[3, "counted"])
    assert given.sent == [3]


@pytest.mark.parametrize("earlier", [None, ALL])
async def test_lost_completion_repeats_the_work_without_a_reader(earlier: list[str] | None) -> None:
    """The worker died between the seal and the completion: the stream has ended already."""
    recorded = await record(write, "Oslo", completion_lost=True, earlier=earlier)
    assert recorded.outline == [*ALL, "END"]
    assert recorded.sent == ALL
    assert recorded.result == Summary(4)
    assert recorded.seal is not None
    assert recorded.seal.attempt == 1


async def test_failing_before_any_chunk_or_after_all_of_them() -> None:
    """Both ends of the script: nothing is sent, or only the result is missing."""
    recorded = await record(write, "Oslo", fail_after=[0, 4, None])
    assert recorded.outline == [*ALL, "RESET 3", *ALL, "END"]


async def test_own_failure_is_raised_where_a_chunk_is_sent() -> None:
    """The author's handler of that error runs as it does in production."""

    @streaming_activity
    async def careful(stream: StreamWriter[str]) -> str:
        for word in WORDS:
            try:
                await stream.send_chunk(word)
            except ConnectionError:
                return "gave up"
        return "done"

    recorded = await record(careful, fail_after=1, fail_with=ConnectionError("gone"))
    assert recorded.outline == ["the", "END"]
    assert recorded.result == "gave up"


@pytest.mark.parametrize(
    ("how", "policy", "ending", "is_retried"),
    [
        ("at all", RetryPolicy(), None, True),
        ("at all", RetryPolicy(maximum_attempts=1), "ERROR ValueError: no model", False),
        ("at all", RetryPolicy(non_retryable_error_types=["ValueError"]), "ERROR", False),
        ("for good", RetryPolicy(), "ERROR ModelError: no such model", False),
        ("result", RetryPolicy(), None, True),
    ],
)
async def test_stream_ends_as_the_retry_policy_demands(
    how: str, policy: RetryPolicy, ending: str | None, is_retried: bool
) -> None:
    """Whether readers see an error depends on what the workflow chose."""
    recorded = await record(fail, how, retry_policy=policy)
    assert recorded.is_retried is is_retried
    last = recorded.outline[-1]
    assert last == "begins" if ending is None else last.startswith(ending)
    with pytest.raises(AssertionError, match="attempt 1 has no result"):
        _ = recorded.result


async def test_time_that_is_used_up_ends_the_stream() -> None:
    """With schedule_to_close_timeout the next attempt would come too late."""
    recorded = await record(
        fail, "at all", attempt=3, schedule_to_close_timeout=timedelta(seconds=3)
    )
    assert recorded.ending is SealState.ERROR
    assert not recorded.is_retried


async def test_script_that_does_not_happen_fails_the_test() -> None:
    """A test of the second attempt must not pass because the first never failed."""
    with pytest.raises(AssertionError, match="sent 4 chunks and completed: fail_after=5"):
        await record(write, "Oslo", fail_after=[5, None])
    with pytest.raises(AssertionError, match="fail_after=2 did not happen") as caught:
        await record(fail, "at all", fail_after=[2, None])
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(AssertionError, match="sent 4 chunks and completed: position=5"):
        await record(write, "Oslo", position=5)


async def test_attempt_that_temporal_would_not_run_fails_the_test() -> None:
    """After a failure for good, or the last attempt of the policy, there is no next one."""
    with pytest.raises(AssertionError, match="Temporal runs no attempt 2"):
        await record(fail, "for good", fail_after=[None, None])
    policy = RetryPolicy(maximum_attempts=2)
    with pytest.raises(AssertionError, match=r"attempt 2 failed .*: Temporal runs no attempt 3"):
        await record(write, "Oslo", fail_after=[1, 1, None], retry_policy=policy)
    with pytest.raises(AssertionError, match="attempt 1 completed: Temporal runs no attempt 2"):
        await record(write, "Oslo", fail_after=[None, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 1, "earlier": ["x"]}, "neither earlier="),
        ({"position": 1, "completion_lost": True}, "neither earlier="),
        ({"attempt": 1, "position": 1}, "no attempt before it"),
        ({"attempt": 0}, "no attempt before it"),
        ({"position": -1}, "no number of chunks"),
        ({"fail_after": [1, -1]}, "no number of chunks"),
    ],
)
async def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    """Otherwise one of the two would be ignored in silence."""
    with pytest.raises(ValueError, match=message):
        await record(resume, "Oslo", **options)


async def test_resets_void_nothing_that_a_resuming_attempt_keeps() -> None:
    """A mixed story: the author compares all of it in one line."""

    @streaming_activity(on_retry=OnRetry.RESUME)
    async def beginning(stream: StreamWriter[str]) -> int:
        for number in range(stream.position, 3):
            await stream.send_chunk(str(number))
        return stream.resumed_from

    recorded = await record(beginning, fail_after=[0, 2, None])
    assert recorded.outline == ["0", "1", "2", "END"]
    assert recorded.result == 2
    assert not any(isinstance(event, Reset) for event in recorded.events)
