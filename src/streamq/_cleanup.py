"""Runs cleanup to completion even if cancelled.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_the_end(cleanup: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to completion even if this task is cancelled meanwhile.

    The coroutine has to limit its own duration. A cancellation that arrives meanwhile is swallowed:
    call this only where the caller is about to end in any case.
    """
    task = asyncio.create_task(cleanup)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    await task
