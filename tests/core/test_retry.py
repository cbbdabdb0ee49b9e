"""The retry policy."""

import asyncio
import time

import pytest

from streamq import BackendError, BackendUnavailableError, ThrottledError
from streamq._retry import RetryPolicy


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "answer"


async def test_passing_failure_is_retried_until_it_passes() -> None:
    """A short outage costs time, nothing else."""
    operation = Flaky(3, BackendUnavailableError("down"))
    assert await RetryPolicy(first_seconds=0.001).run(operation) == "answer"
    assert operation.calls == 4


async def test_an_outage_is_logged_once_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An operator must see that a worker waits for its backend, without a flood of lines."""
    caplog.set_level("INFO", "streamq")
    operation = Flaky(5, BackendUnavailableError("cannot reach Redis"))
    await RetryPolicy(first_seconds=0.001, deadline_seconds=9).run(operation)
    assert [record.getMessage() for record in caplog.records] == [
        "cannot reach Redis; trying again for 9 s",
        "the backend answers again",
    ]


async def test_lasting_failure_is_raised_at_once() -> None:
    """Waiting cannot fix a permanent error."""
    operation = Flaky(1, BackendError("no such database"))
    with pytest.raises(BackendError):
        await RetryPolicy().run(operation)
    assert operation.calls == 1


async def test_deadline_ends_the_retries_with_the_last_error() -> None:
    """No call waits for ever for a server that is gone."""
    operation = Flaky(1_000_000, BackendUnavailableError("down"))
    start = time.monotonic()
    with pytest.raises(BackendUnavailableError, match="down"):
        async with asyncio.timeout(60):
            await RetryPolicy(deadline_seconds=0.05, first_seconds=0.001).run(operation)
    assert operation.calls > 2
    assert time.monotonic() - start >= 0.05


async def test_deadline_of_zero_means_a_single_try() -> None:
    """Callers that want no retry set the same option."""
    operation = Flaky(1, BackendUnavailableError("down"))
    with pytest.raises(BackendUnavailableError):
        await RetryPolicy(deadline_seconds=0).run(operation)
    assert operation.calls == 1


async def test_only_errors_of_the_given_class_are_retried() -> None:
    """Opening waits for a busy backend, and not for one that cannot be reached."""
    policy = RetryPolicy(first_seconds=0.001)
    assert await policy.run(Flaky(2, ThrottledError("busy")), only=ThrottledError) == "answer"
    away = Flaky(2, BackendUnavailableError("away"))
    with pytest.raises(BackendUnavailableError):
        await policy.run(away, only=ThrottledError)
    assert away.calls == 1
