"""Adds a client to a stream, unless it disconnects before its response begins.

A server keeps calling the application after its client has gone. Without this, clients that
disconnect at once would keep their places until the backend has answered for each of them.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from ._follower import Follower
from ._gateway import Gateway


class ClientGoneError(Exception):
    """The client disconnected before its response began."""


async def follow_unless_gone(
    gateway: Gateway, receive: Receive, follow: Coroutine[Any, Any, Follower | None]
) -> Follower | None:
    """Return the result of :meth:`Gateway.follow`.

    Raises:
        ClientGoneError: The client disconnected first.
        StreamqError: As for :meth:`Gateway.follow`.

    Cancellation: leaves nothing behind.
    """
    following = asyncio.create_task(follow)
    leaving = asyncio.create_task(_disconnected(receive))
    gateway.own(following)
    gateway.own(leaving)
    is_returned = False
    try:
        await asyncio.wait((following, leaving), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():  # also if it has just been opened: nobody would notice that later
            raise ClientGoneError
        follower = following.result()
        is_returned = True
        return follower
    finally:
        leaving.cancel()
        if not is_returned:
            following.cancel()
            following.add_done_callback(lambda task: _release(gateway, task))


def _release(gateway: Gateway, task: asyncio.Task[Follower | None]) -> None:
    if task.cancelled() or task.exception() is not None:
        return
    follower = task.result()
    if follower is not None:
        gateway.leave(follower)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
