"""What an inbox takes and what it leaves out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import Chunk, Encoding, Event, Seal, SealState
from streamq.temporal import InboxState, StreamInbox
from streamq.temporal._event_json import pack, unpack

STREAM = "agent/run/default"
STORY: list[Event] = [
    *(Chunk(i, 1, i - 1, Encoding.JSON, str(i).encode()) for i in range(1, 11)),
    Seal(11, 1, SealState.END),
]


def batch(first: int, last: int, **others: Any) -> dict[str, Any]:
    """Return the signal with the events of these offsets."""
    return {"stream": STREAM, "start": 1, "events": pack(STORY[first - 1 : last]), **others}


def taken(inbox: StreamInbox[Any]) -> list[int]:
    return [event.offset for event in unpack(inbox.state().backlog)]


@given(st.lists(st.integers(1, 4), min_size=1), st.data())
def test_what_comes_twice_is_taken_once(sizes: list[int], data: st.DataObject) -> None:
    """A forwarder that crashed sends again what it had sent, cut otherwise; chunks count once."""
    inbox = StreamInbox[Any]()
    sent = 0
    for size in sizes:
        again = data.draw(st.integers(0, sent))
        inbox.put(batch(sent - again + 1, sent + size))
        sent = min(sent + size, len(STORY))
    assert taken(inbox) == list(range(1, sent + 1))
    assert inbox.state().error is None


def test_the_state_is_plain_json_and_goes_on() -> None:
    """It is an argument of continue-as-new; what was not read must survive it."""
    inbox = StreamInbox[Any]()
    inbox.put(batch(1, 4))
    state = InboxState(**json.loads(json.dumps(dataclasses.asdict(inbox.state()))))
    resumed = StreamInbox[Any](state)
    resumed.put(batch(3, 11))
    assert (resumed.stream, resumed.offset) == (STREAM, 11)
    assert taken(resumed) == list(range(1, 12))
    assert resumed.state().sealed


def test_a_hole_is_an_error_and_not_silence() -> None:
    """Chunks that were signalled to another run must not be missing without a word."""
    inbox = StreamInbox[Any]()
    inbox.put(batch(1, 3))
    inbox.put(batch(5, 6))
    state = inbox.state()
    assert taken(inbox) == [1, 2, 3]
    assert state.error is not None
    assert state.error["type"] == "TrimmedError"
    assert "event 5" in state.error["message"]


def test_a_forwarding_may_begin_in_the_middle() -> None:
    """Who asks for what comes after a cursor gets no error for what was before."""
    inbox = StreamInbox[Any]()
    inbox.put(batch(5, 6, start=5))
    assert taken(inbox) == [5, 6]
    assert inbox.state().error is None


def test_another_stream_is_left_alone() -> None:
    """Several agents may signal one gateway; their chunks must not mix."""
    inbox = StreamInbox[Any]()
    assert inbox.put(batch(1, 2))
    assert not inbox.put(batch(1, 5, stream="other"))
    assert taken(inbox) == [1, 2]


def test_a_failed_forwarding_is_kept_after_what_came_before() -> None:
    """The reader gets what there is, and then the reason."""
    inbox = StreamInbox[Any]()
    inbox.put(batch(1, 2))
    inbox.put(batch(1, 0, error={"type": "TrimmedError", "message": "gone"}))
    assert taken(inbox) == [1, 2]
    assert inbox.state().error == {"type": "TrimmedError", "message": "gone"}


def test_a_second_forwarding_must_not_leave_a_hole() -> None:
    """One that was started again with a later cursor would skip events in silence."""
    inbox = StreamInbox[Any]()
    inbox.put(batch(1, 3))
    inbox.put(batch(6, 7, start=6))
    state = inbox.state()
    assert taken(inbox) == [1, 2, 3]
    assert state.error is not None
    assert "event 6" in state.error["message"]


def entries(**changed: Any) -> dict[str, Any]:
    """Return a batch of one entry that is wrong somewhere."""
    return {"stream": "s", "start": 1, "events": [{"attempt": 1, **changed}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"stream": "s", "start": "x", "events": []},
        {"stream": "s", "start": float("inf"), "events": []},
        {"events": 1},
        batch(1, 2, error="it is no object"),
        entries(event="reset", offset="1"),
        entries(event="end", offset=None, state="END"),
        entries(event="chunks", offset=1, seq=0, values="text"),
    ],
)
def test_a_signal_that_is_no_batch_does_not_stop_the_workflow(wrong: dict[str, Any]) -> None:
    """A handler that raises would block the workflow's task for ever."""
    inbox = StreamInbox[Any]()
    assert not inbox.put(wrong)
    error = inbox.state().error
    assert error is not None
    assert error["type"] == "SerializationError"
