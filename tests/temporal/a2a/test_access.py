"""Callers are held to the tenant, the subject and the rights of their tokens."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, ListTasksRequest, TaskState
from a2a.utils.errors import TaskNotFoundError
from pydantic import SecretStr
from tests.access import issuing
from tests.temporal.a2a.agents import Planner, gate
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Stage,
    request,
    sent,
    streamed,
    text_of,
    watch,
)

from streamq import Settings
from streamq.access import mint_token, new_secret, revoke_token

ALL = ("read", "list", "cancel", "write")
_VERSION = {"A2A-Version": "1.0"}


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    """Settings with a key for tokens."""
    return settings.model_copy(update={"token_key": SecretStr(new_secret())})


def token(keyed: Settings, subject: str = "ada", **options: Any) -> str:
    """Return a token for everything that callers of agents do."""
    if not options.keys() & {"workflow", "prefix", "stream"}:
        options["every"] = True
    options.setdefault("actions", ALL)
    return mint_token(subject=subject, settings=keyed, **options)


async def status(refused: Awaitable[Any]) -> int:
    """Return the status of HTTP for a request that is refused, or the one that gRPC has for it."""
    with pytest.raises(A2AClientError) as raised:
        await refused
    text = str(raised.value)
    for code, name in ((401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (503, "UNAVAILABLE")):
        if f"Error {code}" in text or f"Error {name}" in text:
            return code
    raise AssertionError(text)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_opens_the_tasks_of_its_subject_only(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """Two users of one tenant see nothing of each other, whatever the transport is."""
    replica = await stage.replica(settings=keyed)
    ada, eve, far = token(keyed), token(keyed, "eve"), token(keyed, tenant="far")
    async with replica.starter(transport, token=ada) as client:
        task = await sent(client, request("a b"))
        assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    for other in (eve, far):
        async with replica.client(transport, token=other) as client:
            with pytest.raises(TaskNotFoundError) as hidden:
                await client.get_task(GetTaskRequest(id=task.id))
            with pytest.raises(TaskNotFoundError) as unknown:
                await client.get_task(GetTaskRequest(id=task.id[:-1] + "x"))
            with pytest.raises(TaskNotFoundError):
                await client.cancel_task(CancelTaskRequest(id=task.id))
            with pytest.raises(TaskNotFoundError):
                await watch(client, task.id).end()
            with pytest.raises(TaskNotFoundError):
                await streamed(client, request("more", task_id=task.id))
            found = await client.list_tasks(ListTasksRequest())
            assert len(found.tasks) == found.total_size == 0
        assert str(hidden.value).replace(task.id, "") == str(unknown.value).replace(
            task.id[:-1] + "x", ""
        )


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_without_a_good_token_nothing_is_answered(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """A caller that is not known is refused before anything is looked up."""
    replica = await stage.replica(settings=keyed)
    foreign = keyed.model_copy(update={"token_key": SecretStr(new_secret())})
    for bad in ("", "nonsense", token(foreign)):
        async with (
            replica.client(transport, token=bad) as client,
            replica.starter(transport, token=bad) as starter,
        ):
            assert await status(client.get_task(GetTaskRequest(id="any"))) == 401
            assert await status(client.list_tasks(ListTasksRequest())) == 401
            assert await status(client.cancel_task(CancelTaskRequest(id="any"))) == 401
            assert await status(watch(client, "any").end()) == 401
            assert await status(sent(starter, request("a"))) == 401
            assert await status(streamed(client, request("a"))) == 401
    found = stage.client.list_workflows(f"TaskQueue = '{stage.task_queue}'")
    assert [each async for each in found] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_operation_needs_its_right(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """A caller that may see a task and not do this with it learns which right is missing."""
    replica = await stage.replica(settings=keyed)
    async with replica.starter(transport, token=token(keyed)) as client:
        task = await sent(client, request(f"a wait:rights-{transport}", at_once=True))
    reads, lists = token(keyed, actions=["read"]), token(keyed, actions=["list"])
    writes = token(keyed, actions=["write"])
    async with (
        replica.client(transport, token=reads) as reader,
        replica.starter(transport, token=reads) as starter,
    ):
        assert (await reader.get_task(GetTaskRequest(id=task.id))).id == task.id
        assert await status(reader.cancel_task(CancelTaskRequest(id=task.id))) == 403
        assert await status(reader.list_tasks(ListTasksRequest())) == 403
        assert await status(sent(starter, request("a"))) == 403
        assert await status(streamed(reader, request("a", task_id=task.id))) == 403
    async with replica.client(transport, token=lists) as lister:
        assert await status(lister.get_task(GetTaskRequest(id=task.id))) == 403
        assert len((await lister.list_tasks(ListTasksRequest())).tasks) == 0
    async with replica.starter(transport, token=writes) as writer:
        assert await status(sent(writer, request("a"))) == 403
        assert await status(sent(writer, request("a", task_id=task.id))) == 403
    gate(f"rights-{transport}").set()


async def test_a_token_for_one_task_continues_it_and_starts_no_other(
    stage: Stage, keyed: Settings
) -> None:
    """What a page gets for one conversation opens nothing else, not even of the same user."""
    replica = await stage.replica(workflow=Planner, settings=keyed)
    async with replica.starter(token=token(keyed)) as client:
        task, other = await sent(client, request("plan")), await sent(client, request("plan"))
    narrow = token(keyed, workflow=task.id)
    async with replica.starter(token=narrow) as client:
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id=other.id))
        assert await status(sent(client, request("plan"))) == 403
        done = await sent(client, request("Friday", task_id=task.id))
        found = await client.list_tasks(ListTasksRequest())
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    assert {each.id for each in found.tasks} <= {task.id}


async def test_the_tenant_of_a_request_is_that_of_its_token(stage: Stage, keyed: Settings) -> None:
    """A tenant in the path of HTTP+JSON, or in a body, opens nothing that the token does not."""
    replica = await stage.replica(settings=keyed)
    body = {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "a"}]}}
    bearer = {"Authorization": f"Bearer {token(keyed, tenant='acme')}"}
    headers = {"Content-Type": "application/json"} | _VERSION | bearer
    async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=60) as http:
        mine = (await http.post("/acme/message:send", json=body)).json()["task"]["id"]
        own = [await http.get(f"{prefix}/tasks/{mine}") for prefix in ("/acme", "")]
        foreign = await http.get(f"/other/tasks/{mine}")
        cancelled = await http.post(f"/other/tasks/{mine}:cancel")
        started = await http.post("/other/message:send", json=body)
        named = await http.post("/message:send", json=body | {"tenant": "other"})
        listed = await http.get("/other/tasks")
    assert [each.json()["id"] for each in own] == [mine, mine]
    assert (foreign.status_code, cancelled.status_code) == (404, 404)
    assert (started.status_code, named.status_code) == (403, 403)
    assert listed.json()["tasks"] == []


async def test_a_body_is_read_only_after_the_token(stage: Stage, keyed: Settings) -> None:
    """Whoever has no token learns nothing of what the server would say to his request."""
    replica = await stage.replica(settings=keyed)
    async with httpx.AsyncClient(base_url=replica.url) as http:
        found = [
            await http.post("/", content="garbage", headers={"Content-Type": "text/plain"}),
            await http.post("/message:send", content="{", headers=_VERSION),
            await http.get("/tasks?A2A-Version=7.0"),
            await http.get("/nowhere"),
        ]
    assert [each.status_code for each in found] == [401, 401, 401, 401]


async def test_a_token_that_starts_no_task_hears_which_rights_it_takes(
    stage: Stage, keyed: Settings
) -> None:
    """Those that a token has by default are not enough, so the next step is named."""
    replica = await stage.replica(settings=keyed)
    body = {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "a"}]}}
    reads = {"Authorization": f"Bearer {token(keyed, actions=['read', 'cancel'])}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=_VERSION | reads) as http:
        refused = await http.post("/message:send", json=body)
    assert refused.status_code == 403
    assert "read and write on all streams" in refused.json()["error"]["message"]


async def test_a_refusal_says_how_to_bring_a_token(stage: Stage, keyed: Settings) -> None:
    """Status and header are those of the gateway (RFC 6750), whatever form the body has."""
    replica = await stage.replica(settings=keyed)
    body = {"jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": {}}
    reads = {"Authorization": f"Bearer {token(keyed, actions=['read'])}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=_VERSION) as http:
        card = (await http.get("/.well-known/agent-card.json")).json()
        metadata = (await http.get("/.well-known/oauth-protected-resource")).json()
        missing = [await http.post("/", json=body), await http.get("/tasks")]
        bad = await http.get("/tasks", headers={"Authorization": "Bearer x"})
        refused = [
            await http.post("/", json=body, headers=reads),
            await http.get("/tasks", headers=reads),
        ]
    where = f'resource_metadata="{replica.url}/.well-known/oauth-protected-resource"'
    for each in missing:
        assert each.status_code == 401
        assert each.headers["www-authenticate"] == f'Bearer realm="streamq", {where}'
    assert 'error="invalid_token"' in bad.headers["www-authenticate"]
    for each in refused:
        assert each.status_code == 403
        assert 'error="insufficient_scope"' in each.headers["www-authenticate"]
    assert refused[0].json()["id"] == 7
    assert refused[0].json()["error"]["data"][0]["reason"] == "PERMISSION_DENIED"
    assert refused[1].json()["error"]["status"] == "PERMISSION_DENIED"
    assert metadata["resource"] == replica.url
    assert card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"] == "Bearer"
    assert list(card["securityRequirements"][0]["schemes"]) == ["bearer"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_ends_when_its_token_is_revoked(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """A stolen token stops working at once, also on a connection that is open."""
    replica = await stage.replica(settings=keyed)
    name, stolen = f"revoked-{transport}", token(keyed)
    async with replica.starter(transport, token=token(keyed)) as client:
        task = await sent(client, request(f"a wait:{name} b", at_once=True))
    async with replica.client(transport, token=stolen) as client:
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        await revoke_token(stolen, queue=stage.queue, settings=keyed)
        with pytest.raises(Exception, match="revoked"):
            await watcher.end()
        assert await status(client.get_task(GetTaskRequest(id=task.id))) == 401
    gate(name).set()


async def test_a_stream_ends_with_its_token(stage: Stage, keyed: Settings) -> None:
    """A connection does not outlive what permitted it."""
    replica = await stage.replica(settings=keyed)
    async with replica.starter(token=token(keyed)) as client:
        task = await sent(client, request("a wait:expired b", at_once=True))
    brief = token(keyed, lifetime=timedelta(seconds=3))
    async with replica.client(token=brief) as client:
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        with pytest.raises(Exception, match="expired"):
            await watcher.end()
    gate("expired").set()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_while_an_issuer_is_away_callers_are_to_try_again(
    stage: Stage, settings: Settings, tmp_path: Path, transport: str
) -> None:
    """A token that cannot be verified now is not called a bad one."""
    issuers = tmp_path / "issuers.toml"
    issuers.write_text(
        f"""[[issuer]]
issuer = "{issuing.NAME}"
audience = "{issuing.AUDIENCE}"
jwks_url = "http://127.0.0.1:1/keys"
algorithms = ["RS256"]
tenant = "acme"
"""
    )
    chosen = settings.model_copy(update={"token_issuers": issuers})
    replica = await stage.replica(settings=chosen)
    async with replica.client(transport, token=issuing.signed()) as client:
        assert await status(client.get_task(GetTaskRequest(id="any"))) == 503
