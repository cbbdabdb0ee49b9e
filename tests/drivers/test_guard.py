"""The guard of a queue's calls: what they end with, whoever ends them."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import StreamId
from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ErrorRule,
    ErrorTable,
    FencedError,
    Guard,
    StreamqError,
)
from streamq.testing import run_in_virtual_time
from streamq.testing._cancellation import cancel_at_every_await

STREAM = StreamId("tenant", "name")
TABLE = ErrorTable(
    "toy",
    (
        ErrorRule((PermissionError,), AccessDeniedError, "{at} refuses us: {why}"),
        ErrorRule((TimeoutError,), BackendUnavailableError, "{at} was too slow: {why}"),
    ),
    client=(OSError,),
    reason=str,
    otherwise="{at} answered: {why}",
)


def make_guard(seconds: float = math.inf) -> Guard:
    return Guard("toy", TABLE, seconds=seconds, address="toy.example")


async def stuck() -> None:
    """Never return."""
    await asyncio.Event().wait()


async def begun(
    guard: Guard, body: Callable[[], Awaitable[object]] = stuck
) -> asyncio.Task[object]:
    """Return a task that is inside a guarded call."""

    async def append() -> object:
        async with guard(STREAM):
            return await body()

    task = asyncio.create_task(append())
    await asyncio.sleep(0)
    return task


# -- closing ---------------------------------------------------------------------------------------


async def test_closing_ends_the_calls_under_way() -> None:
    """A reader that waits for minutes must not hold up the end of its process."""
    guard = make_guard()
    task = await begun(guard)
    guard.close()
    with pytest.raises(ClosedError, match="this toy queue has been closed") as caught:
        await task
    assert caught.value.stream == str(STREAM)
    assert not task.cancelling()
    assert guard.is_closed


async def test_a_closed_queue_refuses_calls() -> None:
    """A call after the end must not connect again."""
    guard = make_guard()
    guard.check()
    guard.close()
    with pytest.raises(ClosedError) as caught:
        guard.check(STREAM)
    assert caught.value.stream == str(STREAM)
    with pytest.raises(ClosedError):
        async with guard():
            pytest.fail("the call went on")


async def test_nested_calls_end_as_closed() -> None:
    """A listing that describes each stream has one call in another."""
    guard = make_guard()

    async def describe() -> None:
        async with guard():
            await stuck()

    task = await begun(guard, describe)
    guard.close()
    with pytest.raises(ClosedError):
        await task
    assert not task.cancelling()


async def test_the_errors_of_connections_that_closing_has_ended_are_no_outage() -> None:
    """A caller that sees an outage tries again; nothing can succeed on a closed queue."""
    guard = make_guard()

    async def lose_connection() -> None:
        try:
            await stuck()
        except asyncio.CancelledError:
            raise ConnectionResetError("reset") from None

    task = await begun(guard, lose_connection)
    guard.close()
    with pytest.raises(ClosedError) as caught:
        await task
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert not task.cancelling()


async def test_requests_that_the_client_cancels_at_its_end_are_closed() -> None:
    """Some clients cancel the futures of their requests, which looks like a cancellation."""
    guard = make_guard()
    answer = asyncio.get_running_loop().create_future()

    async def wait_for_answer() -> None:
        await answer

    async def close_client() -> None:
        guard._running.clear()  # the client is quicker than the guard
        guard.close()
        answer.cancel()

    task = await begun(guard, wait_for_answer)
    await close_client()
    with pytest.raises(ClosedError):
        await task


async def test_a_call_may_close_its_own_queue() -> None:
    """Opening a queue closes it if that fails; its own end must not end the closing."""
    guard = make_guard()

    async def fail() -> None:
        guard.close()
        await asyncio.sleep(0)  # as it waits for its connections to be closed
        raise AccessDeniedError("no")

    task = await begun(guard, fail)
    with pytest.raises(AccessDeniedError):
        await task


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("closes", [False, True])
async def test_a_cancellation_from_outside_is_passed_on(closes: bool) -> None:
    """A task that was cancelled must end as cancelled, even if the queue is closed as well."""
    guard = make_guard()
    task = await begun(guard)
    task.cancel()
    if closes:
        guard.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_of_the_caller_stays_the_callers() -> None:
    """``asyncio.timeout`` around a call raises ``TimeoutError``, whatever the guard has to say."""
    guard = make_guard()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), guard(STREAM):
            await stuck()


async def test_a_call_that_is_cancelled_anywhere_leaves_the_guard_usable() -> None:
    """A call that was given up must not be counted as running for ever, nor end a later one."""
    guard = make_guard(10)

    async def call() -> None:
        async with guard(STREAM):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    async def nothing_runs() -> None:
        assert not guard._running

    for insists in (False, True):
        await cancel_at_every_await(call, nothing_runs, insists=insists)
    await call()


async def test_cleanup_in_a_cancelled_task_has_a_deadline_of_its_own() -> None:
    """Cleanup calls the backend in a task that was cancelled before."""
    guard = make_guard(0)

    async def work() -> None:
        try:
            await stuck()
        finally:
            with pytest.raises(BackendUnavailableError):
                async with guard():
                    await stuck()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- deadlines -------------------------------------------------------------------------------------


def test_a_call_without_an_answer_ends_in_time() -> None:
    """An operator reads from the message which call of which server hangs, and for how long."""

    async def main() -> None:
        guard = make_guard(10)
        clock = asyncio.get_running_loop().time
        begun_at = clock()
        task = await begun(guard)
        with pytest.raises(BackendUnavailableError) as caught:
            await task
        assert clock() - begun_at == pytest.approx(10)
        assert str(caught.value).startswith(
            "toy at toy.example did not answer append within 10 s; "
        )
        assert (caught.value.backend, caught.value.stream) == ("toy", str(STREAM))
        assert not task.cancelling()

    run_in_virtual_time(main)


def test_a_call_may_have_a_deadline_of_its_own() -> None:
    """A read that waits a minute for records is no outage."""

    async def main() -> None:
        guard = make_guard(10)
        async with guard(STREAM, seconds=70):
            await asyncio.sleep(60)
        with pytest.raises(BackendUnavailableError, match="within 1 s"):
            async with guard(STREAM, seconds=1):
                await asyncio.sleep(2)

    run_in_virtual_time(main)


def test_each_of_many_calls_has_its_own_deadline() -> None:
    """One timer serves all calls, also if a later call has to end before an earlier one."""

    async def main() -> None:
        guard = make_guard()
        clock = asyncio.get_running_loop().time
        ended: list[tuple[float, float]] = []

        async def call(seconds: float, needs: float) -> None:
            begun_at = clock()
            try:
                async with guard(seconds=seconds):
                    await asyncio.sleep(needs)
            except BackendUnavailableError:
                ended.append((seconds, clock() - begun_at))

        tasks = []
        for seconds in (70, 10, 10, 1, 30):
            for needs in (100, 0.5):
                tasks.append(asyncio.create_task(call(seconds, needs)))
                await asyncio.sleep(0.1)
        await asyncio.gather(*tasks)
        assert [seconds for seconds, _ in ended] == [1, 10, 10, 30, 70]
        assert [took for _, took in ended] == pytest.approx([1, 10, 10, 30, 70])

    run_in_virtual_time(main)


async def test_a_timer_keeps_no_dropped_queue() -> None:
    """A queue that was dropped without being closed is collected, and not a minute later."""

    class Queue:
        def translate(self, exc: Exception, stream: str | None) -> None:
            return None

    queue = Queue()
    guard = Guard("toy", queue.translate, seconds=60)
    async with guard():
        await asyncio.sleep(0)
    found = weakref.ref(queue)
    del guard, queue
    gc.collect()
    assert found() is None


async def test_a_result_at_the_last_moment_counts() -> None:
    """Records that a queue has delivered once may be hidden from everyone else."""
    guard = make_guard(0)
    async with guard(STREAM):
        try:
            await stuck()
        except asyncio.CancelledError:
            result = "records"
    assert result == "records"
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()


async def test_a_timeout_of_the_client_is_no_deadline_of_the_guard() -> None:
    """The client knows better what did not answer."""
    with pytest.raises(BackendUnavailableError, match=r"toy\.example was too slow: no answer"):
        async with make_guard(60)(STREAM):
            raise TimeoutError("no answer")


async def test_a_deadline_that_the_client_reports_in_its_own_words_is_translated() -> None:
    """Some clients turn a cancellation into an error of theirs."""
    guard = make_guard(0)

    async def call() -> None:
        try:
            await stuck()
        except asyncio.CancelledError:
            raise ConnectionError("gone") from None

    with pytest.raises(BackendError, match=r"toy\.example answered: gone"):
        async with guard(STREAM):
            await call()
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()


# -- errors ----------------------------------------------------------------------------------------


async def test_exceptions_of_the_client_are_translated() -> None:
    """The core retries by class; people read the message, and the cause below it."""
    with pytest.raises(AccessDeniedError, match=r"toy\.example refuses us: no") as caught:
        async with make_guard()(STREAM):
            raise PermissionError("no")
    assert (caught.value.backend, caught.value.stream) == ("toy", str(STREAM))
    assert isinstance(caught.value.__cause__, PermissionError)


async def test_a_function_may_translate_instead_of_a_table() -> None:
    """Some clients have one exception class, whose text decides."""

    def translate(exc: Exception, stream: str | None) -> StreamqError | None:
        return BackendError(f"{exc} of {stream}") if isinstance(exc, OSError) else None

    with pytest.raises(BackendError, match="no of tenant/name") as caught:
        async with Guard("toy", translate, seconds=math.inf)(STREAM):
            raise OSError("no")
    assert (caught.value.backend, caught.value.stream) == ("toy", str(STREAM))


@pytest.mark.parametrize("guard", [make_guard(), Guard("toy", seconds=math.inf)])
async def test_a_bug_stays_visible(guard: Guard) -> None:
    """An error of streamq would be retried, or blamed on the server."""
    bug = KeyError("x")
    with pytest.raises(KeyError) as caught:
        async with guard(STREAM):
            raise bug
    assert caught.value is bug


async def test_an_error_without_a_stream_gets_that_of_the_call_in_a_copy() -> None:
    """Connecting fails once for all calls that wait; each of them is about another stream."""
    guard = make_guard()
    shared = FencedError("no")
    shared.__cause__ = OSError("why")
    for name in ("one", "two"):
        with pytest.raises(FencedError, match="no") as caught:
            async with guard(StreamId("tenant", name)):
                raise shared
        assert caught.value.stream == f"tenant/{name}"
        assert caught.value.backend == "toy"
        assert caught.value.__cause__ is shared.__cause__
    assert shared.stream is None


async def test_an_error_that_is_complete_is_raised_as_it_is() -> None:
    """A part of the driver may know better which stream an error is about."""
    error = BackendError("no", backend="other", stream="tenant/other")
    with pytest.raises(BackendError) as caught:
        async with make_guard()(STREAM):
            raise error
    assert caught.value is error


# -- all of it at once -----------------------------------------------------------------------------

ENDS = {ClosedError: "close", BackendUnavailableError: "late", AccessDeniedError: "error"}
EVENTS = ("close", "cancel", "late", "answer", "error", "turn")


@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.booleans())
def test_whatever_comes_together_ends_the_call_in_one_way(
    events: list[str], is_stubborn: bool
) -> None:
    """Each of two events alone is simple; defects are where they meet."""

    async def main() -> None:
        guard = make_guard(1000)
        answer = asyncio.get_running_loop().create_future()

        async def body() -> object:
            try:
                return await answer
            except asyncio.CancelledError:
                if is_stubborn:
                    raise ConnectionError("cancelled") from None
                raise

        task = await begun(guard, body)
        (call,) = guard._running
        cancellations = 0
        for event in [*events, "answer"]:
            if event == "close":
                guard.close()
            elif event == "cancel":
                cancellations += task.cancel()
            elif event == "late":
                call.end()  # as its timer does
            elif event == "answer" and not answer.done():
                answer.set_result(True)
            elif event == "error" and not answer.done():
                answer.set_exception(PermissionError("no"))
            elif event == "turn":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        await asyncio.wait({task})
        assert not guard._running
        assert task.cancelling() == cancellations, "the guard's own cancellations are taken back"
        assert task.cancelled() == (cancellations > 0 and not is_stubborn)
        if task.cancelled():
            return
        ended = task.exception()
        assert type(ended) in {type(None), *ENDS} or (is_stubborn and type(ended) is BackendError)
        assert all(type(ended) is not kind or cause in events for kind, cause in ENDS.items())

    asyncio.run(main())
