"""Serves a queue by a gateway, and reads it whole through one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamq import load_settings, open_reader
from streamq.access import new_secret

SETTINGS = load_settings(backend="memory", retry_seconds=0.5)
WITH_KEY = load_settings(backend="memory", retry_seconds=0.5, token_key=new_secret())
Serving = Callable[..., Any]


async def everything(stream: str, **options: Any) -> list[tuple[object, str]]:
    """Return every event of a stream with the cursor after it."""
    async with open_reader(stream, settings=SETTINGS, **options) as reader:
        return [(event, reader.cursor) async for event in reader]
