"""Names of streams: any text, shown without harm, and read back from storage without harm."""

from __future__ import annotations

import logging
import uuid
from urllib.parse import unquote

import pytest
from hypothesis import given
from tests.names import names

from streamq import StreamId
from streamq._events import shown
from streamq._executions import Execution, execution_of
from streamq.cli._names import encoded_name, named
from streamq.driver import stored_stream
from streamq.reading._cursor import Cursor, Progress
from streamq.temporal import stream_name
from streamq.temporal._names import LONGEST_NAME_BYTES, producer_id

RUN = "0193d0a5-6b1c-7c3e-9a53-3f0a5a1b2c3d"


@given(names)
def test_a_name_is_kept_as_it_is_and_shown_without_harm(name: str) -> None:
    """Messages, logs and terminals show names that other people choose."""
    stream = StreamId("t", name)
    assert stream.full_name == f"t/{name}"
    assert str(stream) == f"t/{shown(name)}"
    assert shown(name).isprintable()
    assert shown(name).strip() == shown(name)
    assert unquote(shown(name), errors="strict") == name  # so that no two names look the same
    assert named(shown(name), encoded=True) == name
    assert named(encoded_name(name), encoded=True) == name
    cursor = Cursor(Progress(1, 1, 1, 1), "p")
    assert Cursor.decode(cursor.encode(stream), stream) == cursor


@given(names.filter(lambda name: len(name.encode()) <= LONGEST_NAME_BYTES))
def test_a_workflow_id_comes_back_out_of_its_streams_name(workflow_id: str) -> None:
    """A sweep asks Temporal about the workflow, and a detached producer has an id, too."""
    name = stream_name(workflow_id, RUN)
    assert execution_of(name) == Execution("workflow", workflow_id, RUN)
    activity = Execution("activity", workflow_id, RUN)
    assert execution_of(activity.stream_name("default")) == activity
    assert len(StreamId("t", name).name.encode()) <= 1_100
    assert len(producer_id(name).encode()) <= LONGEST_NAME_BYTES
    assert producer_id(name) != producer_id(stream_name(workflow_id, RUN, "other"))


@pytest.mark.parametrize("name", ["run/1", "größe 流れ 🌊", "a%b", "a\\nb", "a/b/c"])
def test_names_that_can_be_seen_are_shown_as_they_are(name: str) -> None:
    """Nothing changes for names that are in use."""
    assert str(StreamId("t", name)) == f"t/{name}"


@pytest.mark.parametrize(
    ("name", "other"), [("a ", "a%20"), ("a\nb", "a%0Ab"), ("a\nb", "a%0ab"), ("a%\n", "a%25%0A")]
)
def test_two_names_do_not_look_the_same(name: str, other: str) -> None:
    """A name that was copied from a list must not delete another stream."""
    assert shown(name) != shown(other)
    assert {unquote(shown(each)) for each in (name, other)} == {name, other}


def test_a_foreign_entry_is_skipped_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A listing is made every few seconds, and the operator has to see the line among others."""
    place = f"key \x1b[31m{uuid.uuid4()}"
    with caplog.at_level(logging.WARNING, "streamq"):
        for tenant, name in [
            ("t", ""),
            ("t", b"\xff"),
            ("t", 7),
            ("not one!", "a"),
            ("t", "n" * 1537),
        ]:
            for _ in range(3):
                assert stored_stream(tenant, name, backend="b", place=lambda: place) is None
    assert len(caplog.messages) == 5
    assert all(message.isprintable() and "skipped" in message for message in caplog.messages)
    assert stored_stream(b"t", "é".encode(), backend="b", place=pytest.fail) == StreamId("t", "é")
