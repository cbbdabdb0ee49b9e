"""Reads streams in every way, and checks which events type checkers expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never, assert_type

from temporalio.client import ActivityHandle, WorkflowHandle

from streamq import Chunk, Event, EventOrGap, Gap, Reset, Seal, open_reader
from streamq.temporal import ActivityStream, StreamInbox, find_stream_name, subscribe


@dataclass
class Token:
    text: str


def shown(event: Event[Token]) -> str:
    match event:
        case Chunk():
            return event.value.text
        case Reset():
            return f"attempt {event.attempt}"
        case Seal():
            return str(event.state)


def shown_with_gaps(event: EventOrGap[Token]) -> str:
    match event:
        case Gap():
            return f"{event.first} to {event.offset}"
        case Chunk() | Reset() | Seal():
            return shown(event)


async def reads() -> None:
    async with open_reader("name", value_type=Token) as reader:
        async for event in reader:
            match event:
                case Chunk():
                    assert_type(event.value, Token)
                case Reset() | Seal():
                    pass
                case _:
                    assert_never(event)
        for event in await reader.read_batch():
            shown(event)
        assert_type(await reader.collect(), list[Token])


async def reads_with_gaps(wanted: bool) -> None:
    async with open_reader("name", value_type=Token, gaps_as_events=True) as reader:
        async for event in reader:
            match event:
                case Gap():
                    assert_type(event.first, int)
                case _:
                    shown(event)
            shown_with_gaps(event)
    async with open_reader("name", value_type=Token, gaps_as_events=wanted) as reader:
        async for event in reader:
            shown_with_gaps(event)


async def reads_anything() -> None:
    async with open_reader("name", from_="tail", idle_seconds=3.0) as reader:
        async for event in reader:
            if isinstance(event, Chunk):
                assert_type(event.value, Any)


async def subscribes(handle: WorkflowHandle[Any, Any] | ActivityHandle[Any]) -> None:
    assert_type(await find_stream_name(handle), str)
    async with subscribe(handle, value_type=Token) as events:
        async for event in events:
            match event:
                case Chunk():
                    assert_type(event.value, Token)
                case Reset() | Seal():
                    pass


async def in_workflow(stream: ActivityStream[Token, int], inbox: StreamInbox[Token]) -> str:
    async for event in stream:
        shown(event)
    async for event in inbox:
        shown(event)
    assert_type(await stream.result(), int)
    return ""
