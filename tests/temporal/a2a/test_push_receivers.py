"""Push notifications go to no address that their agent's network alone can reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from a2a.types.a2a_pb2 import TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError
from temporalio.client import WorkflowHandle
from tests.temporal.a2a.agents import gate
from tests.temporal.a2a.receivers import push_settings, receiving
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent

from streamq import ConfigurationError, Settings, load_settings
from streamq.a2a._push_config import push_workflow_id
from streamq.a2a._push_receivers import ReceiverRefusedError, Receivers

_PRIVATE = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "localhost",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[fec0::1]",
    "168.63.129.16",
)


@pytest.fixture
def settings() -> Settings:
    return push_settings(a2a_push_networks="")


@pytest.mark.parametrize("host", _PRIVATE)
async def test_an_address_inside_is_refused(host: str) -> None:
    """However it is written: a host of the agent's network, or what gives it its credentials."""
    with pytest.raises(ReceiverRefusedError, match="public internet"):
        await Receivers(load_settings()).check(f"https://{host}/hook")


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "[2606:4700:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"]
)
async def test_an_address_of_the_internet_is_permitted(host: str) -> None:
    """A receiver on the internet needs no setting."""
    await Receivers(load_settings()).check(f"https://{host}:8443/hook?a=b")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://8.8.8.8/",
        "ftp://8.8.8.8/",
        "file:///etc/passwd",
        "//8.8.8.8/",
        "https://",
        "https:///hook",
        "https://user@8.8.8.8/",
        "https://user:secret@8.8.8.8/",
        "https://8.8.8.8:0/",
        "https://8.8.8.8:99999/",
        "https://[fe80::1%25eth0]/",
        "https://8.8.8.8/\r\nX-Other: 1",
        "https://8.8.8.8\\@10.0.0.1/",
        "https://8.8.8.8/ä",
        "https://8.8.8.8/" + "a" * 3_000,
    ],
)
async def test_an_address_that_says_too_much_or_too_little_is_refused(url: str) -> None:
    """Only https, without a user, and without characters that two programs read in two ways."""
    with pytest.raises(ReceiverRefusedError):
        await Receivers(load_settings()).check(url)


async def test_settings_permit_networks_and_name_hosts() -> None:
    """An operator opens one network, and never what is link-local; or names the receivers."""
    permitted = Receivers(load_settings(a2a_push_networks="10.1.0.0/16,127.0.0.1,169.254.0.0/16"))
    await permitted.check("https://10.1.2.3/")
    await permitted.check("https://[::ffff:127.0.0.1]/")
    for inside in ("10.2.0.1", "127.0.0.2", "169.254.169.254"):
        with pytest.raises(ReceiverRefusedError):
            await permitted.check(f"https://{inside}/")
    wide = Receivers(load_settings(a2a_push_networks="0.0.0.0/0,::/0"))
    for credentials in ("100.100.100.200", "168.63.129.16", "[fd00:ec2::254]", "[fd20:ce::254]"):
        with pytest.raises(ReceiverRefusedError):
            await wide.check(f"https://{credentials}/")
    named = Receivers(load_settings(a2a_push_receivers="a.invalid, *.b.invalid"))
    for host in ("a.invalid", "A.invalid.", "x.b.invalid"):
        await named.check(f"https://{host}/")
    for host in ("b.invalid", "xa.invalid", "8.8.8.8"):
        with pytest.raises(ReceiverRefusedError, match="host"):
            await named.check(f"https://{host}/")


def test_a_setting_that_is_no_network_is_refused() -> None:
    """A mistake would otherwise refuse, or permit, in silence."""
    with pytest.raises(ConfigurationError, match=r"A2A_PUSH_NETWORKS.*such as 10\.1\.0\.0/16"):
        load_settings(a2a_push_networks="intranet")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_private_receiver_is_refused_when_it_is_named(stage: Stage, transport: str) -> None:
    """The client learns of it at once, by the error for a bad request, and nothing is kept."""
    replica = await stage.replica()
    async with replica.starter(transport) as client:
        task = await sent(client, request("a"))
        for url in ("http://127.0.0.1:1/hook", "http://169.254.169.254/latest/meta-data"):
            config = TaskPushNotificationConfig(task_id=task.id, url=url)
            with pytest.raises(InvalidParamsError, match="public internet"):
                await client.create_task_push_notification_config(config)
        for field in ("token", "id"):
            config = TaskPushNotificationConfig(task_id=task.id, url="https://8.8.8.8/")
            setattr(config, field, "a\r\nX-Other: 1")
            with pytest.raises(InvalidParamsError, match=field):
                await client.create_task_push_notification_config(config)


@contextlib.contextmanager
def _resolving(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]
) -> Iterator[list[str]]:
    """Let names of hosts have the addresses of the test, one answer after the other."""
    asked, original = list[str](), socket.getaddrinfo

    def found(host: str, port: int, *given: Any, **options: Any) -> Any:
        if host not in answers:
            return original(host, port, *given, **options)
        asked.append(host)
        chosen = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (chosen, port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield asked


async def test_a_name_that_leads_inside_later_gets_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a name may change its address after the check: it is checked at connecting."""
    replica = await stage.replica()
    with _resolving(monkeypatch, {"changes.example": ["8.8.8.8", "127.0.0.1"]}) as asked:
        async with receiving() as receiver, replica.starter() as client:
            task = await sent(client, request("a wait:rebinding", at_once=True))
            url = receiver.url.replace("127.0.0.1", "changes.example")
            config = TaskPushNotificationConfig(task_id=task.id, id="mine", url=url)
            await client.create_task_push_notification_config(config)
            gate("rebinding").set()
            outcome = await stage.client.get_workflow_handle(push_workflow_id(task.id)).result()
    assert "public internet" in outcome["mine"]
    assert len(asked) == 2
    assert not receiver.requests


@pytest.mark.parametrize(
    "settings", [push_settings(a2a_push_networks="127.0.0.1,::1", a2a_push_http=False)], ids=["tls"]
)
@pytest.mark.parametrize("name", ["localhost", "another.invalid"])
async def test_the_name_of_a_receiver_is_verified(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The connection goes to an address that was checked, and TLS still asks for the name."""
    authority, certificate = trustme.CA(), tmp_path / "both.pem"
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    replica = await stage.replica()
    async with receiving(ssl_certfile=str(certificate)) as receiver, replica.starter() as client:
        wanted = request("a")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        task = await sent(client, wanted)
        if name == "localhost":
            assert (await receiver.end())[-1].status_update.task_id == task.id
            return
        handle = stage.client.get_workflow_handle(push_workflow_id(task.id))
        async with asyncio.timeout(20):
            while (tries := await _heartbeat(handle)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert tries["failing_since"]
    assert not receiver.requests


async def _heartbeat(handle: WorkflowHandle[Any, Any]) -> Any:
    """Return the details of the newest heartbeat of a delivery."""
    for each in (await handle.describe()).raw_description.pending_activities:
        if each.heartbeat_details.payloads:
            return json.loads(each.heartbeat_details.payloads[0].data)
    return None
