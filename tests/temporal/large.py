"""Workflows that get much at once, imported by the sandbox."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from streamq import Chunk
from streamq.temporal import stream_activity

from .followers import Options


@workflow.defn
class CountsCharacters:
    """Reads a stream of numbered texts, and keeps no more than their length."""

    @workflow.run
    async def run(self, activity: str, args: list[Any], options: Options) -> list[int]:
        chunks = characters = 0
        async with stream_activity(activity, args=args, **options.keywords()) as stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    characters += len(event.value) if event.value.startswith(f"{chunks} ") else 0
                    chunks += 1
        return [chunks, characters]
