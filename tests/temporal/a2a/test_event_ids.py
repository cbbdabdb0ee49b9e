"""Resumes server-sent streams by ``Last-Event-ID``, as an extension that requests ask for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from tests.temporal.a2a.agents import gate
from tests.temporal.a2a.replicas import Replica, Stage, request, sent

URI = "urn:streamq:a2a:event-ids:v1"
_VERSION = {"A2A-Version": "1.0"}
_ASKING = _VERSION | {"A2A-Extensions": f"urn:other,{URI}"}
BINDINGS = ("JSONRPC", "HTTP+JSON")


@asynccontextmanager
async def _subscribed(
    replica: Replica, binding: str, task_id: str, headers: dict[str, str]
) -> AsyncIterator[EventSource]:
    call: dict[str, Any] = {"method": "GET", "url": f"/tasks/{task_id}:subscribe"}
    if binding == "JSONRPC":
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "SubscribeToTask",
            "params": {"id": task_id},
        }
        call = {"method": "POST", "url": "/", "json": body}
    async with (
        httpx.AsyncClient(base_url=replica.url, timeout=30) as http,
        aconnect_sse(http, headers=headers, **call) as source,
    ):
        yield source


async def _events(
    replica: Replica, binding: str, task_id: str, **headers: str
) -> list[ServerSentEvent]:
    wanted = _ASKING | {name.replace("_", "-"): value for name, value in headers.items()}
    async with _subscribed(replica, binding, task_id, wanted) as source:
        return [each async for each in source.aiter_sse()]


async def _refusal(replica: Replica, binding: str, task_id: str, last: str) -> str:
    """Return the text of the error that answers a subscription."""
    wanted = _ASKING | {"Last-Event-ID": last}
    async with _subscribed(replica, binding, task_id, wanted) as source:
        assert "event-stream" not in source.response.headers["content-type"]
        answer = json.loads(await source.response.aread())
    code = -32602 if binding == "JSONRPC" else 400
    assert answer["error"]["code"] == code
    return str(answer["error"]["message"])


def _payload(event: ServerSentEvent) -> dict[str, Any]:
    data = event.json()
    found: dict[str, Any] = data.get("result", data)
    return found


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_stream_continues_after_the_last_event(stage: Stage, binding: str) -> None:
    """An EventSource that connects again gets the events that it missed, and no snapshot."""
    both = [await stage.replica() for _ in range(2)]
    async with both[0].starter() as starter:
        task = await sent(starter, request(f"a b wait:ids-{binding} c", at_once=True))
        async with _subscribed(both[0], binding, task.id, _ASKING) as source:
            assert source.response.headers["a2a-extensions"] == URI
            first = await anext(source.aiter_sse())
        gate(f"ids-{binding}").set()
        whole = await _events(both[0], binding, task.id, Last_Event_ID="0")
        rest = await _events(both[1], binding, task.id, Last_Event_ID="3")
    assert "task" in _payload(first)
    assert first.id == str(int(_payload(first)["task"]["metadata"]["generation"]))
    assert [each.id for each in whole] == [str(n) for n in range(1, len(whole) + 1)]
    assert not any("task" in _payload(each) for each in whole)
    assert "TASK_STATE_COMPLETED" in whole[-1].data
    assert [_payload(each) for each in rest] == [_payload(each) for each in whole[3:]]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_client_that_has_seen_everything_gets_only_what_is_new(
    stage: Stage, binding: str
) -> None:
    """The answer begins at once, although nothing has happened, and the next event follows."""
    replica = await stage.replica()
    async with replica.starter() as starter:
        task = await sent(starter, request(f"a wait:new-{binding} b", at_once=True))
        async with _subscribed(replica, binding, task.id, _ASKING) as source:
            async for each in source.aiter_sse():
                if '"a "' in each.data:
                    break
        wanted = _ASKING | {"Last-Event-ID": each.id}
        async with _subscribed(replica, binding, task.id, wanted) as source:
            assert source.response.status_code == 200
            gate(f"new-{binding}").set()
            events = [found async for found in source.aiter_sse()]
    assert events[0].id == str(int(each.id) + 1)
    assert '"b "' in events[0].data


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_number_that_is_no_event_of_the_task_is_refused(stage: Stage, binding: str) -> None:
    """A client with the id of another stream learns of its mistake instead of waiting for ever."""
    replica = await stage.replica()
    async with replica.starter() as starter:
        task = await sent(starter, request(f"a wait:number-{binding}", at_once=True))
        assert "beyond" in await _refusal(replica, binding, task.id, "1000")
        for wrong in ("x", "-1", "1.5", "9" * 40):
            assert "no number" in await _refusal(replica, binding, task.id, wrong)
        gate(f"number-{binding}").set()


async def test_a_client_that_has_seen_the_end_is_refused_as_without_a_number(stage: Stage) -> None:
    """An EventSource stops connecting at this answer; one that missed the end still gets it."""
    replica = await stage.replica()
    async with replica.starter() as starter:
        task = await sent(starter, request("a"))
        last = int(task.metadata["generation"])  # type: ignore[arg-type]
        events = await _events(replica, "HTTP+JSON", task.id, Last_Event_ID=str(last - 1))
        wanted = _ASKING | {"Last-Event-ID": str(last)}
        async with _subscribed(replica, "HTTP+JSON", task.id, wanted) as source:
            answer = json.loads(await source.response.aread())
    assert [each.id for each in events] == [str(last)]
    assert answer["error"]["details"][0]["reason"] == "UNSUPPORTED_OPERATION"


async def test_an_event_source_asks_in_its_query(stage: Stage) -> None:
    """A browser's EventSource sets no header; one that connects again sends the newer number."""
    replica = await stage.replica()
    async with replica.starter() as starter:
        task = await sent(starter, request("a"))
    query = f"A2A-Version=1.0&A2A-Extensions={URI}&Last-Event-ID=1"
    path = f"/tasks/{task.id}:subscribe?{query}"
    async with httpx.AsyncClient(base_url=replica.url, timeout=30) as http:
        found = []
        for headers in ({}, {"Last-Event-ID": "2"}):
            async with aconnect_sse(http, "GET", path, headers=headers) as source:
                found.append([each.id async for each in source.aiter_sse()])
    assert found[0] == ["2", *found[1]]
    assert found[1][0] == "3"


@pytest.mark.parametrize("binding", BINDINGS)
async def test_ids_are_for_those_who_ask(stage: Stage, binding: str) -> None:
    """Without the extension a stream is exactly as the specification has it."""
    replica = await stage.replica()
    async with replica.starter() as starter, httpx.AsyncClient(base_url=replica.url) as http:
        task = await sent(starter, request(f"a wait:plain-{binding}", at_once=True))
        headers = _VERSION | {"Last-Event-ID": "1"}
        async with _subscribed(replica, binding, task.id, headers) as source:
            assert "a2a-extensions" not in source.response.headers
            gate(f"plain-{binding}").set()
            events = [each async for each in source.aiter_sse()]
        card = (await http.get("/.well-known/agent-card.json")).json()
    assert {each.id for each in events} == {""}
    assert "task" in _payload(events[0])
    [extension] = card["capabilities"]["extensions"]
    assert extension["uri"] == URI
    assert not extension.get("required")
