"""The declaration of an agent: what is no work is refused where it is written."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.types.a2a_pb2 import AgentCard
from tests.temporal.a2a.agents import Planner

from streamq import ConfigurationError
from streamq.a2a.server import Agent


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"activity": Planner}, "not an activity.*workflow="),
        ({"workflow": len}, "not a workflow.*activity="),
        ({"activity": len}, "not an activity.*@streaming_activity"),
    ],
    ids=["workflow as activity", "function as workflow", "no activity"],
)
def test_what_is_no_work_is_refused_with_advice(given: dict[str, Any], reason: str) -> None:
    """Otherwise the first client of a running server would find out."""
    with pytest.raises(ConfigurationError, match=reason):
        Agent(card=AgentCard(name="wrong"), task_queue="none", **given)
