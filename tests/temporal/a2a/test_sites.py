"""Pages of other sites, whose browser reaches an agent that asks nobody for a token."""

from __future__ import annotations

import httpx
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.temporal.a2a.agents import card
from tests.temporal.a2a.replicas import Stage

from streamq import Settings
from streamq.a2a.server import Agent, create_app
from streamq.access import new_secret

_VERSION = {"A2A-Version": "1.0"}


def _app(stage: Stage, settings: Settings) -> Starlette:
    url = "https://agents.example.org/one"
    agent = Agent(card=card("sites"), task_queue="none", activity="write", url=url)
    return create_app(agent, client=stage.client, queue=stage.queue, settings=settings)


async def _get(app: Starlette, path: str = "/tasks", **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        return await http.get(path, headers=_VERSION | given)


async def test_an_open_agent_answers_to_its_own_names_only(
    stage: Stage, settings: Settings
) -> None:
    """A name of somebody else that leads here may be DNS rebinding: his page would read tasks."""
    app = _app(stage, settings.model_copy(update={"gateway_hosts": "proxy.example.org"}))
    found = [
        await _get(app, host=host)
        for host in ("127.0.0.1:80", "agents.example.org", "proxy.example.org", "evil.example.com")
    ]
    await app.state.handler.aclose()
    assert [each.status_code for each in found] == [200, 200, 200, 421]
    assert "Agent(url=...)" in found[-1].json()["message"]


async def test_an_open_agent_refuses_pages_of_other_sites(stage: Stage, settings: Settings) -> None:
    """A page may send a request without a body unasked, and such a request cancels a task."""
    app = _app(stage, settings)
    transport = httpx.ASGITransport(app)
    foreign = _VERSION | {"Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        refused = await http.post("/tasks/any:cancel", headers=foreign)
        passed = await http.post("/tasks/any:cancel", headers=_VERSION)
    await app.state.handler.aclose()
    assert (refused.status_code, passed.status_code) == (403, 404)


async def test_hosts_are_not_checked_where_something_else_decides(
    stage: Stage, settings: Settings
) -> None:
    """A token protects by itself, and hosts of an application are its own business."""
    keyed = _app(stage, settings.model_copy(update={"token_key": SecretStr(new_secret())}))
    inner = _app(stage, settings)
    outer = Starlette(routes=[Mount("/one", app=inner)])
    assert (await _get(keyed, host="evil.example.com")).status_code == 401
    assert (await _get(outer, "/one/tasks", host="any.example.com")).status_code == 200
    await keyed.state.handler.aclose()
    await inner.state.handler.aclose()
