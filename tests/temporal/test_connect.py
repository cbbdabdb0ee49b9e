"""Tests connections to Temporal as people have them: TLS, mutual TLS, API keys, profiles.

The development server has no TLS, so that ``secure_frontend`` stands in front of it.

Places that connect, and where each is checked: ``streamq.temporal.connect`` here; ``streamq demo``,
``sweep`` and ``doctor`` in ``tests/cli/test_connections.py``; the backend ``workflow_streams`` and
its worker in ``test_workflow_streams_connections.py`` of that plugin. All call
``TemporalTarget.resolve`` and ``TemporalEndpoint.connect``. ``subscribe`` and ``StreamqPlugin`` use
the client that they are given.
"""

from __future__ import annotations

import asyncio
import os
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from temporalio.service import RPCError
from temporalio.worker import Worker
from tests.temporal.support.reading import outline
from tests.temporal.support.secure_frontend import (
    ClientFiles,
    SecureFrontend,
    secure_frontend,
    write_files,
)

from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    ConfigurationError,
    Settings,
    StreamqError,
    StreamWriter,
    load_settings,
)
from streamq.driver import ChunkQueue
from streamq.driver_parts._temporal_target import failed_connection
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    _connect,
    connect,
    streaming_activity,
    subscribe,
)

KEY = "key-that-no-message-may-show"


@dataclass(frozen=True)
class Place:
    """A frontend that demands a client certificate and a key, and the files of its client."""

    frontend: SecureFrontend
    files: ClientFiles
    other: ClientFiles

    def variables(self, **replaced: object) -> dict[str, str]:
        """Return Temporal's own variables that lead there."""
        found: dict[str, object] = {
            "TEMPORAL_ADDRESS": self.frontend.address,
            "TEMPORAL_API_KEY": KEY,
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": self.files.ca,
            "TEMPORAL_TLS_CLIENT_CERT_PATH": self.files.cert,
            "TEMPORAL_TLS_CLIENT_KEY_PATH": self.files.key,
            **replaced,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def settings(self, **replaced: object) -> dict[str, str]:
        """Return streamq's variables that lead there."""
        found: dict[str, object] = {
            "STREAMQ_TEMPORAL_ADDRESS": self.frontend.address,
            "STREAMQ_TEMPORAL_API_KEY": KEY,
            "STREAMQ_TEMPORAL_TLS_SERVER_CA": self.files.ca,
            "STREAMQ_TEMPORAL_TLS_CLIENT_CERT": self.files.cert,
            "STREAMQ_TEMPORAL_TLS_CLIENT_KEY": self.files.key,
            **replaced,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def profile(self, name: str = "default") -> str:
        """Return a profile for ``temporal.toml``."""
        return f"""
[profile.{name}]
address = "{self.frontend.address}"
api_key = "{KEY}"
[profile.{name}.tls]
server_ca_cert_path = "{self.files.ca}"
client_cert_path = "{self.files.cert}"
client_key_path = "{self.files.key}"
"""


@pytest.fixture(scope="module")
def place(temporal_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory, ca, other = tmp_path_factory.mktemp("keys"), trustme.CA(), trustme.CA()
    with secure_frontend(
        temporal_address, ca.issue_cert("localhost"), client_ca=ca, api_key=KEY
    ) as frontend:
        yield Place(
            frontend,
            write_files(directory / "ours", ca, ca.issue_cert("client@example.org")),
            write_files(directory / "other", other, other.issue_cert("client@example.org")),
        )


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the variables and the files of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("TEMPORAL_", "STREAMQ_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def put(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def user_file(home: Path) -> Path:
    """Return where ``temporalio.envconfig`` looks for the file of a user, on Linux."""
    path = home / ".config" / "temporalio" / "temporal.toml"
    path.parent.mkdir(parents=True)
    return path


WAYS = ["settings", "variables", "data", "user's file", "named file", "named profile", "mixed"]


@pytest.mark.parametrize("way", WAYS)
async def test_settings_alone_lead_to_a_secured_server(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """Whoever has Temporal Cloud has one of these, and writes no code for it."""
    match way:
        case "settings":
            put(place.settings(), monkeypatch)
        case "variables":
            put(place.variables(), monkeypatch)
        case "data":
            put(
                place.variables(
                    TEMPORAL_TLS_CLIENT_KEY_PATH=None,
                    TEMPORAL_TLS_CLIENT_KEY_DATA=place.files.key.read_text(),
                ),
                monkeypatch,
            )
        case "user's file":
            user_file(tmp_path).write_text(place.profile())
        case "named file":
            (tmp_path / "mine.toml").write_text(place.profile())
            monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "mine.toml"))
        case "named profile":
            wrong = '[profile.default]\naddress = "127.0.0.1:1"\n'
            user_file(tmp_path).write_text(wrong + place.profile("prod"))
            monkeypatch.setenv("STREAMQ_TEMPORAL_PROFILE", "prod")
        case "mixed":  # the key from a secret's variable, the rest from files
            user_file(tmp_path).write_text(place.profile().replace(KEY, "old"))
            monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY", KEY)
    before = len(place.frontend.calls)
    client = await connect()
    assert await client.service_client.check_health()
    assert len(place.frontend.calls) > before


@streaming_activity
async def greet(name: str, stream: StreamWriter[str]) -> str:
    await stream.send_chunk(f"hello {name}")
    return "done"


async def test_worker_and_subscriber_work_through_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, queue: ChunkQueue, settings: Settings
) -> None:
    """Heartbeats, the watch of the workflow and finding its first run go the same way."""
    put(place.variables(), monkeypatch)
    client = await connect(plugins=[StreamqPlugin(queue, settings)])
    task_queue = uuid.uuid4().hex
    async with Worker(client, task_queue=task_queue, activities=[greet]):
        handle: Any = await client.start_workflow(
            "streamq.Stream", StreamRequest("greet", ["you"]), id=task_queue, task_queue=task_queue
        )
        by_id = client.get_workflow_handle(handle.id)
        async with subscribe(by_id, queue=queue, settings=settings) as events:
            assert outline([event async for event in events]) == ["hello you", "END"]


_go_on = asyncio.Event()


@streaming_activity
async def greet_twice(name: str, stream: StreamWriter[str]) -> str:
    await stream.send_chunk(f"hello {name}")
    await stream.flush()
    await _go_on.wait()
    await stream.send_chunk("and again")
    return "done"


async def test_worker_and_subscriber_go_on_with_a_rotated_key(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    queue: ChunkQueue,
    settings: Settings,
) -> None:
    """Keys expire; polls, completions and watches of a client that runs for months use the next."""
    monkeypatch.setattr(_connect, "_KEY_SECONDS", 0.1)
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    put(
        place.settings(STREAMQ_TEMPORAL_API_KEY=None, STREAMQ_TEMPORAL_API_KEY_FILE=file),
        monkeypatch,
    )
    _go_on.clear()
    client = await connect(plugins=[StreamqPlugin(queue, settings)])
    task_queue = uuid.uuid4().hex
    try:
        async with Worker(client, task_queue=task_queue, activities=[greet_twice]):
            request = StreamRequest("greet_twice", ["you"])
            handle: Any = await client.start_workflow(
                "streamq.Stream", request, id=task_queue, task_queue=task_queue
            )
            async with subscribe(handle, queue=queue, settings=settings) as events:
                found = [await anext(events)]
                place.frontend.api_key = "the-next-key"
                with pytest.raises(RPCError):
                    await handle.describe()
                file.write_text("the-next-key")
                async with asyncio.timeout(60):
                    while client.api_key != "the-next-key":  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.02)
                _go_on.set()
                found += [event async for event in events]
            assert outline(found) == ["hello you", "and again", "END"]
            await handle.result()
    finally:
        place.frontend.api_key = KEY


@pytest.mark.parametrize("content", ["", "two\nlines", None])
def test_file_without_a_key_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """A file that is being replaced, or a wrong path, must not be taken for a key."""
    if content is not None:
        (tmp_path / "key").write_text(content)
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match="STREAMQ_TEMPORAL_API_KEY_FILE"):
        load_settings().temporal_target.resolve()
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY", KEY)
    with pytest.raises(ConfigurationError, match="both given") as caught:
        load_settings().temporal_target.resolve()
    assert KEY not in str(caught.value)


def test_each_value_comes_from_the_first_that_states_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Option, STREAMQ_TEMPORAL_..., TEMPORAL_..., temporal.toml, default."""

    def found(**explicit: object) -> tuple[str, str, str | None, object]:
        endpoint = load_settings(**explicit).temporal_target.resolve()
        return endpoint.address, endpoint.namespace, endpoint.api_key, endpoint.tls

    assert found() == ("127.0.0.1:7233", "default", None, False)
    user_file(tmp_path).write_text(
        '[profile.default]\naddress = "file:1"\nnamespace = "file"\napi_key = "file"\n'
    )
    assert found() == ("file:1", "file", "file", True)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "variable")
    assert found() == ("file:1", "variable", "file", True)
    monkeypatch.setenv("STREAMQ_TEMPORAL_NAMESPACE", "ours")
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY", "ours")
    assert found() == ("file:1", "ours", "ours", True)
    assert found(temporal_address="option:1") == ("option:1", "ours", "ours", True)
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY", "")
    monkeypatch.setenv("TEMPORAL_API_KEY", "")
    assert found()[2:] == (None, False), "an empty variable takes a key away"


CLOUD = """
[profile.default]
address = "cloud:7233"
namespace = "mine.a1b2c"
api_key = "file"
grpc_meta = { "x-file" = "yes" }
tls = { server_name = "cloud" }
"""


def test_file_for_another_address_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its key must not be sent to the server of an option, and a local one speaks no TLS."""
    user_file(tmp_path).write_text(CLOUD)
    local = load_settings(temporal_address="127.0.0.1:7233").temporal_target
    found = local.resolve()
    assert (found.namespace, found.api_key, found.tls, found.metadata) == (
        *("default", None, False),
        {},
    )
    same = load_settings(temporal_address="cloud:7233").temporal_target.resolve()
    assert (same.namespace, same.api_key, same.metadata) == (
        *("mine.a1b2c", "file"),
        {"x-file": "yes"},
    )
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:7233")
    same = load_settings(temporal_address="cloud:7233").temporal_target.resolve()
    assert same.api_key == "file", "the file's own address decides about the file"
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "variable")
    monkeypatch.setenv("TEMPORAL_API_KEY", "variable")
    monkeypatch.setenv("STREAMQ_TEMPORAL_PROFILE", "default")
    found = local.resolve()
    assert (found.namespace, found.api_key, found.tls) == ("variable", "variable", True)


def test_no_key_goes_out_in_clear_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever turns TLS off means a local server, or has forgotten the key."""
    user_file(tmp_path).write_text(CLOUD)
    monkeypatch.setenv("STREAMQ_TEMPORAL_TLS", "false")
    found = load_settings().temporal_target.resolve()
    assert (found.address, found.api_key, found.tls) == ("cloud:7233", None, False)
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY", KEY)
    with pytest.raises(ConfigurationError, match=r"API_KEY is given.*clear text") as caught:
        load_settings().temporal_target.resolve()
    assert KEY not in str(caught.value)
    monkeypatch.delenv("STREAMQ_TEMPORAL_TLS")
    monkeypatch.setenv("TEMPORAL_TLS", "false")
    assert load_settings().temporal_target.resolve().tls, "a key of ours implies TLS"


ALERTS = {
    "CertificateRequired": "it demands a client certificate: name one in P_TLS_CLIENT_CERT or TEM",
    "CertificateExpired": "it refuses our client certificate (CertificateExpired): check P_TLS_CLI",
    "UnknownCA": "it refuses our client certificate (UnknownCA): check P_TLS_CLIENT_CERT",
    "HandshakeFailure": "received fatal alert: HandshakeFailure",
    "ProtocolVersion": "received fatal alert: ProtocolVersion",
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_explained_only_as_far_as_it_is_known(alert: str) -> None:
    """A wrong cause costs more time than none."""
    # As the SDK has raised them for TLS 1.3 and 1.2 (temporalio 1.35).
    texts = [
        "Failed client connect: `get_system_info` call error after connection: Status { code: "
        'Unknown, message: "transport error", source: Some(tonic::transport::Error(Transport, '
        f'hyper::Error(Io, Custom {{ kind: InvalidData, error: "received fatal alert: {alert}" }}',
        "Failed client connect: Server connection error: tonic::transport::Error(Transport, "
        f"ConnectError(Custom {{ kind: InvalidData, error: AlertReceived({alert}) }}))",
    ]
    for text in texts:
        assert failed_connection(RuntimeError(text), "P_")[1].startswith(ALERTS[alert])


FAULTS: dict[str, tuple[type[StreamqError], str]] = {
    "wrong authority": (BackendUnavailableError, "not trusted.*TLS_SERVER_CA"),
    "no authority": (BackendUnavailableError, "not trusted.*TLS_SERVER_CA"),
    "other name": (BackendUnavailableError, "another name.*TLS_SERVER_NAME"),
    "no client certificate": (BackendUnavailableError, "client certificate.*TLS_CLIENT_CERT"),
    "expired key": (AccessDeniedError, "API key .*has expired.*STREAMQ_TEMPORAL_API_KEY"),
    "no key": (AccessDeniedError, "API key is missing.*TEMPORAL_API_KEY"),
    "no TLS": (BackendUnavailableError, "demands TLS"),
    "file is missing": (ConfigurationError, "absent.pem.*cannot be read: No such file"),
    "PEM as path": (ConfigurationError, "TLS_CLIENT_KEY.* has PEM text where the path"),
    "PEM as path, ours": (ConfigurationError, "STREAMQ_TEMPORAL_TLS_CLIENT_KEY has PEM text"),
    "certificate as key": (ConfigurationError, "no private key in PEM"),
    "no PEM": (ConfigurationError, "no certificate in PEM"),
    "certificate without key": (ConfigurationError, "needs its private key"),
    "TLS off with a file": (ConfigurationError, "TLS is false"),
    "unknown profile": (ConfigurationError, "Profile 'none' not found"),
    "broken file": (ConfigurationError, "TOML parse error at line 2"),
}


def faulty(fault: str, place: Place, home: Path) -> dict[str, str]:
    files = place.files
    (home / "text.pem").write_text("nothing")
    match fault:
        case "wrong authority":
            return place.variables(TEMPORAL_TLS_SERVER_CA_CERT_PATH=place.other.ca)
        case "no authority":
            return place.variables(TEMPORAL_TLS_SERVER_CA_CERT_PATH=None)
        case "other name":
            return place.settings(STREAMQ_TEMPORAL_TLS_SERVER_NAME="elsewhere.example.org")
        case "no client certificate":
            return place.variables(
                TEMPORAL_TLS_CLIENT_CERT_PATH=None, TEMPORAL_TLS_CLIENT_KEY_PATH=None
            )
        case "expired key":
            return place.settings(STREAMQ_TEMPORAL_API_KEY=f"old-{KEY}")
        case "no key":
            return place.variables(TEMPORAL_API_KEY=None)
        case "no TLS":
            return {"TEMPORAL_ADDRESS": place.frontend.address}
        case "file is missing":
            return place.variables(TEMPORAL_TLS_CLIENT_KEY_PATH=home / "absent.pem")
        case "PEM as path":
            return place.variables(TEMPORAL_TLS_CLIENT_KEY_PATH=files.key.read_text())
        case "PEM as path, ours":
            return place.settings(STREAMQ_TEMPORAL_TLS_CLIENT_KEY=files.key.read_text())
        case "certificate as key":
            return place.settings(STREAMQ_TEMPORAL_TLS_CLIENT_KEY=files.cert)
        case "no PEM":
            return place.settings(STREAMQ_TEMPORAL_TLS_SERVER_CA=home / "text.pem")
        case "certificate without key":
            return place.settings(STREAMQ_TEMPORAL_TLS_CLIENT_KEY=None)
        case "TLS off with a file":
            return place.settings(STREAMQ_TEMPORAL_TLS="false")
        case "unknown profile":
            return place.variables(TEMPORAL_PROFILE="none")
        case _:
            (home / "broken.toml").write_text(f'[profile.default]\napi_key = "{KEY}" oops\n')
            return {"TEMPORAL_CONFIG_FILE": str(home / "broken.toml")}


@pytest.mark.parametrize("fault", FAULTS)
async def test_error_names_the_cause_and_shows_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    """The SDK raises one class for all of this, and the text of a TLS library."""
    put(faulty(fault, place, tmp_path), monkeypatch)
    kind, text = FAULTS[fault]
    with pytest.raises(kind, match=text) as caught:
        await connect()
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert place.files.key.read_text().splitlines()[1] not in shown


async def test_renewed_key_is_used_by_the_next_connection(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Commands connect anew each time, and a program does so by calling connect again."""
    put(place.variables(TEMPORAL_API_KEY=None), monkeypatch)
    path = user_file(tmp_path)
    path.write_text('[profile.default]\napi_key = "old"\n')
    with pytest.raises(AccessDeniedError):
        await connect()
    path.write_text(f'[profile.default]\napi_key = "{KEY}"\n')
    assert await (await connect()).service_client.check_health()
