"""Defines graphs and a workflow as the samples of LangGraph have them, without streamq."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.contrib.workflow_streams import WorkflowStream
from temporalio.langgraph import graph

TOKENS, PROGRESS = "tokens", "progress"


class State(TypedDict):
    text: str


async def tell(state: State) -> dict[str, str]:
    return write(state)


def tell_in_a_thread(state: State) -> dict[str, str]:
    return write(state)


def write(state: State) -> dict[str, str]:
    """Write three tokens; the first attempt in an activity writes two and fails."""
    writer = get_stream_writer()
    for number, token in enumerate("abc"):
        if number == 2 and activity.in_activity() and activity.info().attempt == 1:
            raise RuntimeError("as the test wants")
        writer({"token": token})
    return {"text": state["text"] + "abc"}


def make_graph(node: Any, place: str) -> Any:
    """Return a graph with one node."""
    options: dict[str, Any] = {"execute_in": place}
    if place == "activity":
        options |= {
            "start_to_close_timeout": timedelta(seconds=10),
            "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        }
    made: Any = StateGraph(State)
    made.add_node("tell", node, metadata=options)
    made.add_edge(START, "tell")
    return made


@workflow.defn
class StreamsGraph:
    """Runs the graph, and publishes its progress."""

    def __init__(self) -> None:
        self.stream = WorkflowStream()
        self.app = graph("story").compile()

    @workflow.run
    async def run(self, text: str) -> None:
        progress = self.stream.topic(PROGRESS)
        async for chunk in self.app.astream({"text": text}):
            progress.publish(chunk)
