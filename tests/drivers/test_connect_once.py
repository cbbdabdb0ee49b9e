"""One connection for all calls: it is made once, survives whoever asked, and is never left open."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.driver import ClosedError, ConnectOnce, closed_error, together
from streamq.testing._cancellation import cancel_at_every_await


class Connection:
    """Counts how often it was ended."""

    def __init__(self) -> None:
        self.ended = 0


class Server:
    """Makes connections and knows what became of them.

    Attributes:
        made: All connections.
        connecting: How many are being made now.
        most: How many were being made at the same time.
        answers: Set while it answers.
        ends: Set while connections can be ended.
        failure: Raised instead of connecting, if there is one.
    """

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.connecting = self.most = 0
        self.answers, self.ends = asyncio.Event(), asyncio.Event()
        self.answers.set()
        self.ends.set()
        self.failure: Exception | None = None

    async def connect(self) -> Connection:
        self.connecting += 1
        self.most = max(self.most, self.connecting)
        try:
            await self.answers.wait()
            await asyncio.sleep(0)
        finally:
            self.connecting -= 1
        if self.failure is not None:
            raise self.failure
        self.made.append(Connection())
        return self.made[-1]

    async def disconnect(self, connection: Connection) -> None:
        await self.ends.wait()
        connection.ended += 1

    def once(self) -> ConnectOnce[Connection]:
        return ConnectOnce(self.connect, self.disconnect, closed=partial(closed_error, "toy"))

    def check_released(self) -> None:
        """Check that each connection was ended once."""
        assert [each.ended for each in self.made] == [1] * len(self.made)
        assert self.connecting == 0


@pytest.fixture
async def server() -> Server:
    return Server()


async def turn() -> None:
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_connection_serves_all(server: Server) -> None:
    """A hundred streams that begin at once must not open a hundred connections."""
    once = server.once()
    assert once.current is None
    found = await together(once.get() for _ in range(5))
    assert {*found, await once.get(), once.current} == {server.made[0]}
    assert server.most == 1
    await once.aclose()
    server.check_released()


async def test_a_caller_that_is_cancelled_disturbs_no_other(server: Server) -> None:
    """The first reader connects for all; if it gives up, the others must not fail."""
    server.answers.clear()
    once = server.once()
    first, second = (asyncio.create_task(once.get()) for _ in range(2))
    await turn()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.answers.set()
    assert await second is server.made[0]
    await once.aclose()
    server.check_released()


async def test_a_connection_that_nobody_waits_for_is_kept(server: Server) -> None:
    """A caller with short deadlines would otherwise never get through to a slow server."""
    server.answers.clear()
    once = server.once()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await once.get()
    server.answers.set()
    await turn()
    assert once.current is server.made[0]
    assert await once.get() is server.made[0]
    await once.aclose()


async def test_an_error_goes_to_all_that_wait_and_the_next_call_connects_again(
    server: Server,
) -> None:
    """A server that was restarted is used again, and nobody waits for what has failed."""
    server.failure = ConnectionRefusedError("no")
    once = server.once()
    found = await asyncio.gather(*(once.get() for _ in range(3)), return_exceptions=True)
    assert found == [server.failure] * 3
    server.failure = None
    assert await once.get() is server.made[0]
    await once.aclose()


async def test_a_broken_connection_is_replaced_once(server: Server) -> None:
    """Ten calls find the same connection broken: they need one new connection, and not ten."""
    once = server.once()
    broken = await once.get()
    for _ in range(3):
        once.forget(broken)
    assert once.current is None
    fresh = await once.get()
    assert fresh is not broken
    once.forget(broken)
    assert await once.get() is fresh
    await once.aclose()
    assert len(server.made) == 2
    server.check_released()


async def test_disconnecting_holds_up_no_call(server: Server) -> None:
    """To say good-bye to a server that is gone takes as long as its timeout."""
    server.ends.clear()
    once = server.once()
    once.forget(await once.get())
    assert await once.get() is server.made[1]
    closing = asyncio.create_task(once.aclose())
    await turn()
    assert not closing.done(), "closing waits for it, so that nothing is left"
    server.ends.set()
    await closing
    server.check_released()


async def test_an_error_of_disconnecting_is_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not keep a queue from closing the rest, and still be found by an operator."""

    async def fail(connection: Connection) -> None:
        raise OSError("no good-bye")

    once = ConnectOnce(server.connect, fail, closed=partial(closed_error, "toy"))
    await once.get()
    with caplog.at_level(logging.WARNING, "streamq"):
        await once.aclose()
    assert "disconnecting failed: OSError: no good-bye" in caplog.text


async def test_closing_ends_the_waiting_calls_and_refuses_others(server: Server) -> None:
    """Connecting to a server that does not answer must not outlive the queue."""
    server.answers.clear()
    once = server.once()
    waiting = asyncio.create_task(once.get())
    await turn()
    await once.aclose()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await once.get()
    server.check_released()


async def test_a_connection_that_is_made_in_spite_of_closing_is_ended(server: Server) -> None:
    """Some clients finish what they have begun, also if they are cancelled."""
    begun = asyncio.Event()

    async def connect() -> Connection:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return await server.connect()

    once = ConnectOnce(connect, server.disconnect, closed=partial(closed_error, "toy"))
    waiting = asyncio.create_task(once.get())
    await begun.wait()
    closing = [asyncio.create_task(once.aclose()) for _ in range(3)]
    await asyncio.gather(*closing)
    with pytest.raises(ClosedError):
        await waiting
    assert len(server.made) == 1
    server.check_released()


async def test_closing_that_was_cancelled_can_be_called_again_and_finishes(
    server: Server,
) -> None:
    """A request that is left closes its queue, and is cancelled at each await in it."""
    server.ends.clear()
    once = server.once()
    await once.get()
    closing = asyncio.create_task(once.aclose())
    await turn()
    closing.cancel()
    server.ends.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await once.aclose()
    await once.aclose()
    server.check_released()


@pytest.mark.parametrize("insists", [False, True])
async def test_nothing_is_left_wherever_a_caller_is_cancelled(
    server: Server, insists: bool
) -> None:
    """A connection that nobody knows of stays open until the process ends."""
    used: list[ConnectOnce[Connection]] = []

    async def use() -> None:
        once = server.once()
        used.append(once)
        try:
            once.forget(await once.get())
            await once.get()
        finally:
            await once.aclose()

    async def check() -> None:
        await used[-1].aclose()
        server.check_released()

    await cancel_at_every_await(use, check, insists=insists)


ACTIONS = ("get", "give up", "answer", "hang", "fail", "work", "forget", "close", "leave", "turn")


@given(st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_any_order_of_events_leaves_nothing(actions: list[str]) -> None:
    """Each of two events alone is simple; defects are where they meet."""

    async def main() -> None:
        server = Server()
        once = server.once()
        calls: list[asyncio.Task[Connection]] = []
        closings: list[asyncio.Task[None]] = []
        for action in actions:
            if action == "get":
                calls.append(asyncio.create_task(once.get()))
            elif action == "give up" and calls:
                calls[-1].cancel()
            elif action == "answer":
                server.answers.set()
            elif action == "hang":
                server.answers.clear()
            elif action == "fail":
                server.failure = OSError("no")
            elif action == "work":
                server.failure = None
            elif action == "forget" and once.current is not None:
                once.forget(once.current)
            elif action == "close":
                closings.append(asyncio.create_task(once.aclose()))
            elif action == "leave" and closings:
                closings[-1].cancel()
            elif action == "turn":
                await turn()
            open_now = [each for each in server.made if not each.ended and each is not once.current]
            assert server.connecting <= 1
            assert not open_now or "forget" in actions or "close" in actions
        await once.aclose()
        server.check_released()
        for task in calls:
            await asyncio.wait({task})
            if not task.cancelled():
                assert isinstance(task.exception(), ClosedError | OSError | type(None))
            else:
                assert "give up" in actions
        await asyncio.gather(*closings, return_exceptions=True)

    asyncio.run(main())
