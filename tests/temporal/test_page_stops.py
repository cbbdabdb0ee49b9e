"""The button of the gateway's page that stops a producer."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from urllib.parse import quote

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker
from tests.gateway.browsers import Browser

from streamq import Settings, StreamWriter, load_settings
from streamq.access import mint_token, new_secret
from streamq.driver import ChunkQueue
from streamq.gateway import create_app, serve
from streamq.temporal import StreamqPlugin, find_stream_name, streaming_activity

_HIDDEN = "document.getElementById('stop').hidden"


@pytest.fixture
def settings(temporal_address: str) -> Settings:
    return load_settings(
        backend="memory",
        cancel_seconds=0.2,
        token_key=new_secret(),
        gateway_cancel_tenants="default",
        temporal_address=temporal_address,
    )


@streaming_activity
async def words(stream: StreamWriter) -> None:
    """Stream for ever."""
    while True:
        await stream.send_chunk("word ")
        await asyncio.sleep(0.02)


@workflow.defn(sandboxed=False)
class Speaks:
    """Runs the activity until it is cancelled."""

    @workflow.run
    async def run(self) -> None:
        """Run."""
        await workflow.execute_activity(
            words,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def give(browser: Browser, token: str) -> None:
    await browser.until("document.activeElement.id === 'token'")
    await browser.type(token)
    await browser.press("Enter")
    await browser.until("!document.querySelector('dialog[open]')")


async def test_the_page_stops_a_workflow_where_the_token_permits_it(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, browser: Browser
) -> None:
    """A button that is refused when it is pressed is worse than none; one by mistake, too."""
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Speaks],
        activities=[words],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        workflow_id = f"chat/{uuid.uuid4().hex}"
        handle = await client.start_workflow(Speaks.run, id=workflow_id, task_queue=task_queue)
        name = await find_stream_name(handle)
        async with serve(create_app(queue, settings)) as server:
            await browser.open(f"{server.url}/?stream={quote(name, safe='')}")
            await give(browser, mint_token(settings=settings, stream=name, actions=("read",)))
            await browser.until("document.getElementById('output').textContent.includes('word')")
            await browser.until("document.getElementById('connection').textContent === 'live'")
            assert await browser.value(_HIDDEN) is True
            await browser.press("t")
            every = mint_token(settings=settings, workflow=workflow_id, actions=("read", "cancel"))
            await give(browser, every)
            await browser.until(f"!{_HIDDEN}")
            await browser.press("s")
            await browser.until("document.querySelector('#stop-dialog[open]')")
            assert workflow_id in (await browser.text("#stop-what") or "")
            await browser.press("Enter")  # the focus is on "Let it run"
            await browser.until("!document.querySelector('dialog[open]')")
            assert await browser.text("#state") == "●OPEN"
            await browser.press("s")
            await browser.press("Tab")
            await browser.press("Enter")
            await browser.until("document.querySelector('#state.CANCELLED')")
            await browser.until("document.getElementById('toast').textContent.includes('stopped')")
            assert await browser.value(_HIDDEN) is True
            assert "on request" in (await browser.text("#meaning") or "")
