"""Runs cleanup to completion even if cancelled.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def to_the_end(cleanup: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to completion even if this task is cancelled meanwhile; return its result.

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
    return task.result()
