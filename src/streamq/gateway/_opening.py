"""Begins a request and adds its client to a stream, unless the client disconnects meanwhile.

A server keeps calling the application after its client has gone. Without this, clients that
disconnect would keep their places in the queues until it is their turn. Clients give up and ask
again after some seconds, so that a gateway with a long queue would serve only those that have gone.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Message, Receive, Scope

from ._gateway import Gateway
from ._throttled import AnyFollower

T = TypeVar("T")

CLIENT_GONE = 499
"""Status for logs where the client has gone: no client gets it."""


class ClientGoneError(Exception):
    """The client disconnected before its response began."""


async def enter_unless_gone(gateway: Gateway, scope: Scope, receive: Receive) -> Receive:
    """Wait until a request may begin; return what its application receives from.

    Raises:
        ClientGoneError: The client disconnected first.
        GatewayLimitError: As for :meth:`Gateway.enter`.

    Cancellation: leaves nothing behind.
    """
    received: deque[Message] = deque()

    async def leave() -> None:
        while True:
            message = await receive()
            received.append(message)
            if message["type"] == "http.disconnect":
                entering.cancel()
                return
            if message.get("more_body"):  # the rest of a body is not kept here
                return

    async def receive_again() -> Message:
        return received.popleft() if received else await receive()

    entering = asyncio.create_task(gateway.enter(scope))
    leaving = asyncio.create_task(leave())
    gateway.own(entering)
    gateway.own(leaving)
    try:
        await asyncio.wait((entering,))
        if entering.cancelled():
            raise ClientGoneError
        entering.result()
        return receive_again
    finally:
        leaving.cancel()
        entering.cancel()


async def follow_unless_gone(
    gateway: Gateway, receive: Receive, follow: Coroutine[Any, Any, AnyFollower | None]
) -> AnyFollower | None:
    """Return the result of :meth:`Gateway.follow`.

    Raises:
        ClientGoneError: The client disconnected first.
        StreamqError: As for :meth:`Gateway.follow`.

    Cancellation: leaves nothing behind.
    """

    def release(follower: AnyFollower | None) -> None:
        if follower is not None:
            gateway.leave(follower)

    return await unless_gone(gateway, receive, follow, release)


async def unless_gone(
    gateway: Gateway,
    receive: Receive,
    work: Coroutine[Any, Any, T],
    release: Callable[[T], None] = lambda _: None,
) -> T:
    """Return the result of work for a response, which is cancelled if the client disconnects.

    Args:
        gateway: Waits for the work when it is closed.
        receive: Tells that the client disconnected.
        work: The work.
        release: Gives up a result that came too late.

    Raises:
        ClientGoneError: The client disconnected first.

    Cancellation: leaves nothing behind.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(receive))
    gateway.own(working)
    gateway.own(leaving)
    is_returned = False
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():  # also if it has just been opened: nobody would notice that later
            raise ClientGoneError
        result = working.result()
        is_returned = True
        return result
    finally:
        leaving.cancel()
        if not is_returned:
            working.cancel()
            working.add_done_callback(lambda task: _release(task, release))


def _release(task: asyncio.Task[T], release: Callable[[T], None]) -> None:
    if not task.cancelled() and task.exception() is None:
        release(task.result())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
