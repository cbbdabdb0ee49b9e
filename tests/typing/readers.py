"""Reads streams in every way, and checks which events type checkers expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never, assert_type

from temporalio.client import ActivityHandle, WorkflowHandle

from streamq import (
    Chunk,
    Event,
    EventOrGap,
    Gap,
    ReadFailure,
    Reset,
    Seal,
    Story,
    StreamFound,
    StreamId,
    StreamqError,
    open_reader,
    open_readers,
    read_story,
    temporal,
)
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


async def reads_many(prefixes: list[str], cursors: dict[str, str]) -> None:
    async with open_readers(["a", StreamId("acme", "b")], value_type=Token) as readers:
        async for item in readers:
            assert_type(item.stream, StreamId)
            match item.event:
                case Chunk():
                    assert_type(item.event.value, Token)
                case Reset() | Seal():
                    pass
                case StreamFound():
                    assert_type(item.event.is_new, bool)
                case ReadFailure():
                    assert_type(item.event.error, StreamqError)
                    await readers.add(item.stream)
                case _:
                    assert_never(item.event)
        again = open_readers(from_=readers.cursors)
        assert_type(await readers.remove("a"), str | None)
    async with again, open_readers(prefixes=prefixes, from_=cursors, gaps_as_events=True) as many:
        async for each in many:
            match each.event:
                case Chunk():
                    assert_type(each.event.value, Any)
                case Gap():
                    assert_type(each.event.first, int)
                case _:
                    pass


async def reads_stories(handle: WorkflowHandle[Any, Any]) -> None:
    story = await read_story("name", value_type=Token)
    assert_type(story, Story[Token])
    assert_type(story.values, list[Token])
    assert_type(story.text, str)
    by_handle = await temporal.read_story(handle, "topic", value_type=Token)
    assert_type(by_handle.chunks, tuple[Chunk[Token], ...])


async def reads_topics(handle: WorkflowHandle[Any, Any]) -> None:
    async with temporal.subscribe_topics(handle, ["a", "b"], value_type=Token) as events:
        async for item in events:
            match item.event:
                case Chunk():
                    assert_type(item.event.value, Token)
                case Reset() | Seal() | ReadFailure():
                    assert_type(item.topic, str)
        temporal.subscribe_topics(handle, ["a", "b"], from_=events.cursors)


async def in_workflow(stream: ActivityStream[Token, int], inbox: StreamInbox[Token]) -> str:
    async for event in stream:
        shown(event)
    async for event in inbox:
        shown(event)
    assert_type(await stream.result(), int)
    return ""
