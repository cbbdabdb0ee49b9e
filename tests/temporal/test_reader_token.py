"""The token that an application hands to a browser with the workflow that it has started."""

from __future__ import annotations

import uuid
from datetime import timedelta
from urllib.parse import quote

import httpx
import pytest
from temporalio.client import Client

from streamq import ConfigurationError, load_settings, open_queue, open_writer
from streamq.access import new_secret
from streamq.gateway import create_app, serve
from streamq.temporal import reader_token


async def test_a_browser_gets_its_token_with_the_workflow(client: Client) -> None:
    """It opens the streams of this chain of runs, and no others: ids are used again."""
    settings = load_settings(backend="memory", token_key=new_secret())
    handle = await client.start_workflow("Anything", id=f"wf-{uuid.uuid4()}", task_queue="nobody")
    try:
        given = await reader_token(handle, subject="ada", settings=settings)
        assert given.stream == f"{handle.id}/{handle.first_execution_run_id}/default"
        assert given.token not in repr(given)
        assert given.to_dict()["expires_in_seconds"] == 900
        another = f"{handle.id}/{uuid.uuid4()}/default"
        async with open_queue(settings) as queue:
            for name in (given.stream, another):
                async with open_writer(name, queue=queue, settings=settings) as writer:
                    await writer.send_chunk("x")
            app = create_app(queue, settings)
            async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as http:
                headers = {"Authorization": f"Bearer {given.token}"}
                for name, status in ((given.stream, 200), (another, 404)):
                    answer = await http.get(f"/story/{quote(name)}", headers=headers)
                    assert answer.status_code == status
                deleted = await http.delete(f"/streams/{quote(given.stream)}", headers=headers)
                assert deleted.status_code == 403
        brief = await reader_token(
            handle.id,
            "log",
            subject="ada",
            client=client,
            lifetime=timedelta(seconds=9),
            settings=settings,
        )
        assert brief.stream.endswith("/log")
        assert brief.expires_in_seconds == 9
        with pytest.raises(ConfigurationError, match="no key to sign"):
            await reader_token(handle, subject="ada", settings=load_settings(backend="memory"))
    finally:
        await handle.terminate()
