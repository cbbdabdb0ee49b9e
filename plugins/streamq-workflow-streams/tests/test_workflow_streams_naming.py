"""Workflow ids and memos of hosts: each leads back to its stream."""

from __future__ import annotations

from hypothesis import example, given
from temporalio.api.common.v1 import Memo
from tests.names import names

from streamq import StreamId
from streamq_workflow_streams._naming import HostNames, memo_of, stream_of
from streamq_workflow_streams._protocol import json_payload


@given(names)
@example("n" * 1536)
@example("~" + "n" * 64)
def test_memo_of_any_name_leads_back_to_its_stream(name: str) -> None:
    """Names are workflow ids, which may be anything; the host's own id is limited."""
    stream = StreamId("t", name)
    workflow_id = HostNames("streamq-host").workflow_id(stream)
    assert stream_of(memo_of(stream), workflow_id) == stream
    assert len(workflow_id.encode()) <= 255


def test_foreign_memos_name_no_stream() -> None:
    """Others may start workflows under the same prefix."""
    for each in (["", "a"], ["t", 1], ["t", ["a"]], 7, None, ["t"], ["t", "n" * 2_000]):
        memo = Memo(fields={"streamq_stream": json_payload(each)})
        assert stream_of(memo, "host") is None
    assert stream_of(Memo(), "host") is None
