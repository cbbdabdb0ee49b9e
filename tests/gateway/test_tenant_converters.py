"""One gateway reads the streams of several tenants, each with the converter of that tenant."""

from __future__ import annotations

import pytest
from temporalio.converter import DataConverter
from tests.gateway.converters import ACME, GLOBEX
from tests.gateway.served import Serve, Served, WatchedQueue

from streamq import ConfigurationError, Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import create_app
from streamq.temporal._serializer import conversion

CONVERTERS = "tests.gateway.converters"
SETTINGS = load_settings(
    backend="memory",
    retry_seconds=0.05,
    token_key=new_secret(),
    gateway_data_converters=f"acme={CONVERTERS}:ACME, globex = {CONVERTERS}:GLOBEX",
)


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


async def write(queue: WatchedQueue, tenant: str, converter: DataConverter, text: str) -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    serializer, codec = conversion(converter, "s", "default", None)
    async with open_writer(
        "s", queue=queue, settings=settings, serializer=serializer, codec=codec
    ) as writer:
        await writer.send_chunk(text)


async def seen(served: Served, tenant: str) -> str:
    """Return the events of the stream ``s`` of a tenant, as its reader gets them."""
    token = mint_token(every=True, tenant=tenant, settings=SETTINGS)
    answer = await served.client.get(
        "/streams/s/events", headers={"Authorization": f"Bearer {token}"}
    )
    return answer.text


async def test_each_tenant_is_decrypted_with_its_own_key(start: Serve, queue: WatchedQueue) -> None:
    """Tenants do not share keys, and a gateway may serve all of them."""
    await write(queue, "acme", ACME, "plans of acme")
    await write(queue, "globex", GLOBEX, "plans of globex")
    served = await start()
    for tenant in ("acme", "globex"):
        assert f"plans of {tenant}" in await seen(served, tenant)


async def test_no_tenant_is_decrypted_with_the_key_of_another(
    start: Serve, queue: WatchedQueue
) -> None:
    """Not even one that has no converter of its own."""
    await write(queue, "globex", ACME, "secret")
    await write(queue, "initech", ACME, "secret")
    served = await start()
    for tenant in ("globex", "initech"):
        found = await seen(served, tenant)
        assert "secret" not in found
        assert "event: error" in found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("acme", "'acme' is not tenant=module:name"),
        ("acme=converters", "not tenant=module:name"),
        ("a/b=converters:ACME", "tenant 'a/b' must be"),
        ("acme=converters:ACME,acme=converters:GLOBEX", "'acme' is there twice"),
    ],
)
def test_wrong_setting_is_refused_when_the_gateway_is_made(text: str, why: str) -> None:
    """A tenant whose key is not found would see errors in place of its streams."""
    with pytest.raises(ConfigurationError, match=why):
        create_app(settings=SETTINGS.model_copy(update={"gateway_data_converters": text}))
