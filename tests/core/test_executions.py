"""Tests the names of streams: which workflow or activity is behind one, without a doubt."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest

from streamq._executions import Execution, execution_of

RUN = "0189c3a5-7b1c-7d2e-8f00-123456789abc"
OTHER_RUN = "0189c3a5-7b1c-7d2e-8f00-cba987654321"
IDS = [
    "poem-7",
    "a/b",
    "activity",
    f"activity-{RUN}",
    f"a/{RUN}",
    f"a/{RUN}/default",
    f"a/activity-{RUN}",
    f"a/activity-{RUN}/default",
    f"a/activity-{RUN}/{OTHER_RUN}",
    "a/",
    "/a",
    "workflow/\u3000x",
]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("kind", ["workflow", "activity"])
def test_name_states_the_execution_that_it_was_made_from(
    kind: Literal["workflow", "activity"], id: str
) -> None:
    """A sweep asks Temporal about it: a wrong answer would end a stream that is written."""
    execution = Execution(kind, id, RUN)
    assert execution_of(execution.stream_name("default")) == execution


def test_no_two_executions_share_a_name() -> None:
    """Ids are the user's and may imitate a name; two streams in one would be mixed."""
    kinds: tuple[Literal["workflow", "activity"], ...] = ("workflow", "activity")
    topics = ("default", f"activity-{RUN}", RUN)
    made = [
        Execution(kind, id, run).stream_name(topic)
        for kind, id, run, topic in itertools.product(kinds, IDS, (RUN, OTHER_RUN), topics)
    ]
    assert len(set(made)) == len(made)
