"""Lists with details: where each stream stands, for a page that asks every few seconds."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    CorruptRecordError,
    StreamId,
    load_settings,
    open_writer,
)
from streamq.access import Permission, mint_token, new_secret, permit
from streamq.driver import ChunkQueue, QueueOptions, StreamInfo
from streamq.gateway import create_app, serve
from streamq.memory import MemoryDriver, MemorySettings

from .served import Serve, Served, WatchedQueue

RUN = "0d0e7a52-93a8-4f31-9a53-3d61b3a54f2b"


class DescribedQueue(WatchedQueue):
    """Counts how often streams are described, and cannot read one of them."""

    def __init__(self, inner: ChunkQueue) -> None:
        super().__init__(inner)
        self.described = 0
        self.damaged = ""
        self.silent = ""

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        if stream.name == self.damaged:
            raise CorruptRecordError("damaged")
        if stream.name == self.silent:
            raise BackendUnavailableError("no answer")
        self.described += 1
        return await super().describe(stream, last=last)


@pytest.fixture
async def queue() -> AsyncIterator[DescribedQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with DescribedQueue(inner) as described:
        yield described


async def details(served: Served, name: str) -> dict[str, Any]:
    listed = (await served.get("/streams?details=true")).json()["streams"]
    (found,) = [each for each in listed if each["name"] == name]
    fields: dict[str, Any] = found
    return fields


async def test_a_list_says_where_each_stream_stands(start: Serve, queue: DescribedQueue) -> None:
    """A name alone does not tell an operator which of 500 streams failed."""
    began = time.time()
    async with open_writer("open", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        first = await open_writer("failed", queue=queue)
        await first.send_chunk("a")
        await first.aclose()
        second = await open_writer("failed", queue=queue)
        await second.send_chunk("b")
        await second.fail(ValueError("no"))
        await second.aclose()
        served = await start()
        found = await details(served, "open")
        assert (found["state"], found["attempt"], found["offset"]) == ("OPEN", 1, 1)
        assert found["seal"] is None
        assert began - 1 <= found["opened_at"] == found["attempt_opened_at"] <= time.time() + 1
        failed = await details(served, "failed")
        assert (failed["state"], failed["attempt"]) == ("ERROR", 2)
        assert failed["seal"]["message"] == "no"
        assert failed["opened_at"] < failed["attempt_opened_at"]
        assert "state" not in (await served.get("/streams")).json()["streams"][0]


async def test_attempts_that_a_program_numbers_have_no_times(
    start: Serve, queue: DescribedQueue
) -> None:
    """The page would say that a stream is 55 years old."""
    async with open_writer("s", queue=queue, epoch=7) as writer:
        await writer.send_chunk("a")
    found = await details(await start(), "s")
    assert (found["opened_at"], found["attempt_opened_at"]) == (None, None)


async def test_a_list_that_is_polled_describes_only_what_has_changed(
    start: Serve, queue: DescribedQueue
) -> None:
    """Each page that is open would else ask the backend about 500 streams every five seconds."""
    for i in range(20):
        async with open_writer(f"s{i}", queue=queue) as writer:
            await writer.send_chunk("a")
    served = await start()
    assert (await served.get("/streams?details=true")).json()["details_are_complete"]
    asked = queue.described
    assert asked >= 20
    for _ in range(3):
        assert (await served.get("/streams?details=true")).json()["details_are_complete"]
    assert queue.described == asked


async def test_one_answer_describes_a_bounded_number_of_streams(
    start: Serve, queue: DescribedQueue
) -> None:
    """The first page of the day must not delay live readers by a thousand questions."""
    for i in range(140):
        async with open_writer(f"s{i}", queue=queue) as writer:
            await writer.send_chunk("a")
    served = await start()
    first = (await served.get("/streams?details=true&limit=140")).json()
    known = [each for each in first["streams"] if each["state"] is not None]
    assert len(known) <= 128
    assert not first["details_are_complete"]
    while not (answer := await served.get("/streams?details=true&limit=140")).json()[
        "details_are_complete"
    ]:
        pass
    assert all(each["state"] == "END" for each in answer.json()["streams"])


async def test_a_stream_that_cannot_be_read_hides_no_other(
    start: Serve, queue: DescribedQueue
) -> None:
    """One damaged stream would take the list from everybody."""
    for name in ("good", "bad"):
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk("a")
    served = await start()
    queue.damaged = "bad"
    assert (await details(served, "good"))["state"] == "END"
    assert (await details(served, "bad"))["state"] is None


async def test_what_an_outage_hides_is_asked_for_again(start: Serve, queue: DescribedQueue) -> None:
    """A second without the backend must not hide for a minute how the streams stand."""
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start()
    queue.silent = "a"
    answer = (await served.get("/streams?details=true")).json()
    assert (answer["streams"][0]["state"], answer["details_are_complete"]) == (None, False)
    queue.silent = ""
    assert (await details(served, "a"))["state"] == "END"


async def test_details_are_either_wanted_or_not(start: Serve) -> None:
    """A mistyped parameter that is ignored looks like a gateway that knows nothing."""
    answer = await (await start()).get("/streams?details=yes")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_names_of_temporal_lead_to_its_ui(queue: DescribedQueue) -> None:
    """The stream is what failed; the workflow is why."""
    settings = load_settings(
        backend="memory",
        gateway_temporal_ui="https://temporal.example.org/ui/",
        temporal_namespace="chat/eu",
    )
    names = [f"chat/7/{RUN}/default", f"job 1/activity-{RUN}/log", "other/name"]
    for name in names:
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk("a")
    async with (
        serve(create_app(queue, settings)) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        listed = (await client.get("/streams?details=true")).json()["streams"]
        found = {each["name"]: each["temporal_url"] for each in listed}
        root = "https://temporal.example.org/ui/namespaces/chat%2Feu"
        assert found == {
            names[0]: f"{root}/workflows/chat%2F7/{RUN}/history",
            names[1]: f"{root}/activities/job%201/{RUN}/details",
            names[2]: None,
        }
        executions = {each["name"]: each["execution"] for each in listed}
        assert executions[names[0]] == {"kind": "workflow", "id": "chat/7", "run_id": RUN}
        status = (await client.get(f"/streams/{names[0]}")).json()
        assert status["temporal_url"] == found[names[0]]


@pytest.mark.parametrize(
    "address",
    ["localhost:8233", "javascript:alert(1)", "https://", "https://a:b@c", "https://a?b=c", "//a"],
)
def test_the_address_of_the_ui_is_one_that_browsers_may_follow(address: str) -> None:
    """The page makes a link of it."""
    with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_TEMPORAL_UI"):
        load_settings(backend="memory", gateway_temporal_ui=address)


async def test_a_status_says_what_its_reader_may_do(queue: DescribedQueue) -> None:
    """A page that shows a button which is refused later is worse than one without it."""
    settings = load_settings(
        backend="memory", token_key=new_secret(), gateway_cancel_tenants="default"
    )
    name = f"chat-7/{RUN}/default"
    for each in (name, "plain"):
        async with open_writer(each, queue=queue) as writer:
            await writer.send_chunk("a")

    def header(*actions: str) -> dict[str, str]:
        token = mint_token(
            settings=settings,
            subject="ada",
            actions=actions,
            every=True,
            lifetime=timedelta(hours=1),
        )
        return {"Authorization": f"Bearer {token}"}

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(create_app(queue, settings)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
        reading = (await client.get(f"/streams/{name}", headers=header("read"))).json()
        assert reading["actions"] == ["read", "describe"]
        assert reading["takes_tokens"] is True
        assert reading["token"]["subject"] == "ada"
        assert 3_500 < reading["token"]["expires_in_seconds"] <= 3_600
        stopping = header("read", "list", "cancel", "delete")
        assert (await client.get(f"/streams/{name}", headers=stopping)).json()["actions"] == [
            "read",
            "describe",
            "cancel",
            "delete",
        ]
        plain = (await client.get("/streams/plain", headers=stopping)).json()
        assert plain["actions"] == ["read", "describe", "delete"]  # nothing runs behind it
        assert (await client.post("/session", headers=stopping)).status_code == 200
        own = {"Sec-Fetch-Site": "same-origin"}
        by_cookie = (await client.get(f"/streams/{name}", headers=own)).json()
        assert by_cookie["actions"] == ["read", "describe"]  # a cookie permits to read only
        listed = (await client.get("/streams?details=true", headers=own)).json()
        assert listed["token"]["subject"] == "ada"


async def test_a_tenant_sees_no_details_of_another(queue: DescribedQueue) -> None:
    """What one tenant's page has learned is kept for all pages of the process."""
    settings = load_settings(backend="memory", token_key=new_secret())
    secret = uuid.uuid4().hex
    writer = await open_writer("s", queue=queue)
    await writer.fail(ValueError(secret))
    await writer.aclose()
    async with (
        serve(create_app(queue, settings)) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        answers = {}
        for tenant in ("default", "other"):
            token = mint_token(
                settings=settings, tenant=tenant, actions=("list", "read"), every=True
            )
            headers = {"Authorization": f"Bearer {token}"}
            answers[tenant] = (await client.get("/streams?details=true", headers=headers)).text
        assert secret in answers["default"]
        assert secret not in answers["other"]


async def test_an_application_says_whose_details_are_shown(queue: DescribedQueue) -> None:
    """A list that says more than a status would tells strangers what they may not know."""
    for each in ("a", "b"):
        async with open_writer(each, queue=queue) as writer:
            await writer.send_chunk("x")
    asked: list[str] = []

    def authorize(_request: object, stream: StreamId | None) -> bool | list[Permission]:
        if stream is None:
            return True
        asked.append(stream.name)
        return [permit(*(("list", "read") if stream.name == "a" else ("list",)), every=True)]

    settings = load_settings(backend="memory")
    app = create_app(queue, settings, authorize=authorize)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        listed = (await client.get("/streams?details=true")).json()["streams"]
        assert {each["name"]: each["state"] for each in listed} == {"a": "END", "b": None}
        assert sorted(asked) == ["a", "b"]  # once each
        status = (await client.get("/streams/a")).json()
        assert status["actions"] == ["read", "describe"]
