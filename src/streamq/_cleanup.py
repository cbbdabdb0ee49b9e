"""What has to be done to the end whoever asks to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_the_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await to the end whatever cancellation arrives; what is awaited has to bound itself.

    Cancellation that arrives meanwhile is not passed on: for a caller that is about to end in any
    case.
    """
    task = asyncio.create_task(ending)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    await task
