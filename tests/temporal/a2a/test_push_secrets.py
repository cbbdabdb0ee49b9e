"""Push notifications prove who sent them, and their credentials are seen by nobody else."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import (
    AgentCard,
    AuthenticationInfo,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    TaskState,
)
from starlette.responses import Response
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import (
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)
from tests.temporal.a2a.agents import gate
from tests.temporal.a2a.receivers import Got, Receiver, push_settings, receiving
from tests.temporal.a2a.replicas import Replica, Stage, request, sent

from streamq import ConfigurationError, Settings
from streamq.a2a._push_config import push_workflow_id
from streamq.a2a.client import verify_notification
from streamq.a2a.server import Agent, create_app
from streamq.access import InvalidTokenError, new_ed25519_key, new_secret
from streamq.driver import ChunkQueue

_PRIVATE, _PUBLIC = new_ed25519_key()
_SHARED = new_secret()
_CREDENTIALS, _TOKEN = "the-credentials", "the-token"
_SIGNATURE = "x-a2a-notification-signature"


@pytest.fixture(params=[_PRIVATE], ids=["private"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return push_settings(a2a_push_key=request.param, a2a_push_secret="s" * 32)


async def _delivered(replica: Replica, receiver: Receiver, **fields: Any) -> str:
    """Run a task whose events go to a receiver, and return the task's id."""
    async with replica.starter() as client:
        wanted = request("a b")
        config = receiver.config(id="mine", token=_TOKEN, **fields)
        wanted.configuration.task_push_notification_config.CopyFrom(config)
        task = await sent(client, wanted)
        await receiver.end()
    return task.id


async def test_a_receiver_verifies_by_the_published_key(stage: Stage) -> None:
    """It needs nothing but the address of the agent; a body that was changed is refused."""
    replica = await stage.replica()
    async with receiving() as receiver, httpx.AsyncClient(base_url=replica.url) as http:
        await _delivered(replica, receiver, authentication=AuthenticationInfo(scheme="Bearer"))
        published = (await http.get("/.well-known/jwks.json")).text
    assert '"d"' not in published
    for got in receiver.taken:
        event = verify_notification(
            got.body, got.headers, url=receiver.url, keys=published, token=_TOKEN
        )
        assert event == got.event
        assert got.headers["authorization"] == f"Bearer {got.headers[_SIGNATURE]}"
    _refuses_changes(receiver.taken[-1], receiver.url, published)


@pytest.mark.parametrize("settings", [_SHARED], indirect=True, ids=["secret"])
async def test_a_receiver_verifies_by_a_shared_secret(stage: Stage) -> None:
    """Where agent and receiver have one operator; the secret is not published."""
    replica = await stage.replica()
    async with receiving() as receiver, httpx.AsyncClient(base_url=replica.url) as http:
        await _delivered(replica, receiver)
        assert (await http.get("/.well-known/jwks.json")).json() == {"keys": []}
    _refuses_changes(receiver.taken[-1], receiver.url, _SHARED)


def _refuses_changes(got: Got, url: str, keys: str) -> None:
    good = verify_notification(got.body, got.headers, url=url, keys=keys)
    assert good.status_update.status.state == TaskState.TASK_STATE_COMPLETED
    changed = got.body.replace(b"COMPLETED", b"CANCELED")
    unsigned = {name: value for name, value in got.headers.items() if name != _SIGNATURE}
    forged = got.headers | {_SIGNATURE: f"{got.headers[_SIGNATURE][:-8]}AAAAAAAA"}
    for body, headers, address, key in (
        (changed, got.headers, url, keys),
        (got.body, unsigned, url, keys),
        (got.body, forged, url, keys),
        (got.body, got.headers, f"{url}/other", keys),
        (got.body, got.headers, url, new_ed25519_key()[1]),
        (got.body, got.headers, url, new_secret()),
    ):
        with pytest.raises(InvalidTokenError):
            verify_notification(body, headers, url=address, keys=key)
    with pytest.raises(InvalidTokenError):
        verify_notification(got.body, got.headers, url=url, token="another")
    with pytest.raises(ConfigurationError):
        verify_notification(got.body, got.headers, url=url)


def test_a_short_secret_is_refused_at_the_start() -> None:
    """And not by the first client that sets a token."""
    agent = Agent(card=AgentCard(name="short"), task_queue="none", activity="write")
    with pytest.raises(ConfigurationError, match="STREAMQ_A2A_PUSH_SECRET is too weak"):
        create_app(agent, settings=push_settings(a2a_push_secret="short"))


def test_a_parsed_key_set_is_refused_with_advice() -> None:
    """Whoever passes ``response.json()`` learns that the text is wanted."""
    with pytest.raises(ConfigurationError, match=r"response\.text"):
        verify_notification(b"{}", {}, url="https://me.example.org", keys={"keys": []})  # type: ignore[arg-type]


async def test_credentials_are_in_no_log_and_in_no_history(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """With a secret Temporal keeps them encrypted; the client that set them still reads them."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="a2a")  # with DEBUG the SDK logs the bodies of requests
    failing = iter([500])
    replica = await stage.replica()
    async with receiving(lambda *_: Response(status_code=next(failing, 204))) as receiver:
        task_id = await _delivered(
            replica,
            receiver,
            authentication=AuthenticationInfo(scheme="Bearer", credentials=_CREDENTIALS),
        )
        assert receiver.taken[-1].headers["authorization"] == f"Bearer {_CREDENTIALS}"
        async with replica.starter() as client:
            found = await client.get_task_push_notification_config(
                GetTaskPushNotificationConfigRequest(task_id=task_id, id="mine")
            )
    assert (found.token, found.authentication.credentials) == (_TOKEN, _CREDENTIALS)
    handle = stage.client.get_workflow_handle(push_workflow_id(task_id))
    await handle.result()
    events = (await handle.fetch_history()).events
    stored = b"".join(each.SerializeToString() for each in events)
    stored += (await handle.describe()).raw_info.SerializeToString()
    assert receiver.url.encode() in stored
    assert "is tried again" in caplog.text
    for secret in (_CREDENTIALS, _TOKEN):
        assert secret.encode() not in stored
        assert secret not in caplog.text


class _ByWorkflow(PayloadCodec, WithSerializationContext):
    """Hides payloads, for the workflow of their context only."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key

    def with_context(self, context: SerializationContext) -> _ByWorkflow:
        workflow_id = getattr(context, "workflow_id", None)
        return _ByWorkflow(str(workflow_id).encode()) if workflow_id else self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": self.key}, data=each.SerializeToString()[::-1])
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        assert {each.metadata["encoding"] for each in payloads} <= {self.key}
        return [Payload.FromString(each.data[::-1]) for each in payloads]


async def test_a_payload_codec_has_everything_that_temporal_keeps(
    temporal_address: str, queue: ChunkQueue
) -> None:
    """Whoever encrypts histories needs no other secret: memo and updates are encrypted, too."""
    converter = dataclasses.replace(DataConverter.default, payload_codec=_ByWorkflow())
    client = await Client.connect(temporal_address, data_converter=converter)
    stage = Stage(client, queue, push_settings())
    try:
        async with receiving() as one, receiving() as two, stage.worker():
            replica = await stage.replica()
            async with replica.starter() as starter:
                wanted = request("a wait:codec b", at_once=True)
                wanted.configuration.task_push_notification_config.CopyFrom(
                    one.config(id="one", token=_TOKEN)
                )
                task = await sent(starter, wanted)
                await starter.create_task_push_notification_config(
                    two.config(id="two", task_id=task.id, token=_TOKEN)
                )
                found = await starter.list_task_push_notification_configs(
                    ListTaskPushNotificationConfigsRequest(task_id=task.id)
                )
                gate("codec").set()
                await one.end()
                await two.end()
        handle = client.get_workflow_handle(push_workflow_id(task.id))
        events = (await handle.fetch_history()).events
        stored = b"".join(each.SerializeToString() for each in events)
        stored += (await handle.describe()).raw_info.SerializeToString()
    finally:
        await stage.aclose()
    assert [each.token for each in found.configs] == [_TOKEN, _TOKEN]
    assert _TOKEN.encode() not in stored
    assert _TOKEN[::-1].encode() in stored
