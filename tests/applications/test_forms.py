"""Records activities of every form: what their authors assert is what readers and Temporal get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.applications.activities import (
    WORDS,
    Poet,
    Summary,
    Token,
    count,
    count_in_thread,
    recite_partly,
    write,
    write_and_log,
    write_in_thread,
    yields,
    yields_in_thread,
)

from streamq import Chunk, Seal, SealState, load_settings
from streamq.testing import record

ALL = [f"Oslo {word}" for word in WORDS]


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (write, Summary(4)),
        (write_in_thread, Summary(4)),
        (yields, None),
        (yields_in_thread, Summary(4)),
        (Poet("").recite, Summary(4)),
        (recite_partly, Summary(4)),
    ],
    ids=["async", "thread", "generator", "generator in a thread", "method", "partial"],
)
async def test_every_form_is_recorded(function: Callable[..., Any], result: object) -> None:
    """The author of any activity tests it in three lines."""
    recorded = await record(function, "Oslo")
    assert recorded.chunks == ALL
    assert recorded.outline == [*ALL, "END"]
    assert recorded.ending is SealState.END
    assert recorded.result == result
    assert recorded.error is None
    assert not recorded.is_retried


async def test_events_have_the_offsets_that_readers_get() -> None:
    """Who asserts on cursors needs the numbers, not only the values."""
    recorded = await record(write, args=["Oslo"])
    assert [event.offset for event in recorded.events] == [1, 2, 3, 4, 5]
    assert all(isinstance(event, Chunk) for event in recorded.events[:4])
    assert isinstance(recorded.seal, Seal)
    assert recorded.text == "".join(ALL)


async def test_second_writer_has_a_stream_of_its_own() -> None:
    """An activity with a log beside its output is asserted on both."""
    recorded = await record(write_and_log, "Oslo")
    assert recorded.chunks == [Token(f"Oslo {word}", len(word)) for word in WORDS]
    assert recorded.streams["log"].outline == ["begins", "ends", "END"]
    assert list(recorded.streams) == ["stream", "log"]
    assert recorded.streams["log"].stream.name.endswith("/log")


@pytest.mark.parametrize("function", [count, count_in_thread])
async def test_heartbeats_are_those_of_the_function(function: Callable[..., Any]) -> None:
    """streamq's own heartbeats are not the author's business."""
    recorded = await record(function, 2)
    assert recorded.heartbeats == [(1, "counted"), (2, "counted")]


async def test_topic_workflow_and_tenant_name_the_stream() -> None:
    """Code that computes names from activity.info() can be tested with known ones."""
    recorded = await record(
        write_and_log,
        "Oslo",
        topic="poem",
        workflow_id="order/7",
        settings=load_settings(tenant="acme"),
    )
    names = [each.stream.full_name for each in recorded.streams.values()]
    assert [name.rpartition("/")[2] for name in names] == ["poem", "poem.log"]
    assert all(name.startswith("acme/order/7/") for name in names)


async def test_representation_tells_the_story() -> None:
    """pytest prints it where an assertion fails."""
    shown = repr(await record(write, "Oslo"))
    assert shown == (
        "<Recorded 'Oslo the', 'Oslo sea', 'Oslo is', 'Oslo deep', END; "
        "attempt 1: result Summary(words=4)>"
    )


async def test_other_functions_are_refused_with_the_remedy() -> None:
    """An author who forgets the decorator, or the instance, learns it from the message."""

    async def plain() -> None: ...

    with pytest.raises(TypeError, match="decorate it with @streaming_activity"):
        await record(plain)
    with pytest.raises(TypeError, match="pass that of an instance"):
        await record(Poet.recite, "Oslo")
    with pytest.raises(ValueError, match="not both"):
        await record(write, "Oslo", args=["Oslo"])


async def test_text_of_other_values_is_refused() -> None:
    """A comparison with the text of numbers would hold by accident."""
    recorded = await record(count, 2)
    assert recorded.chunks == [0, 1]
    with pytest.raises(TypeError, match="no text"):
        _ = recorded.text
