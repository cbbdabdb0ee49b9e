"""Tests that commands reach a secured Temporal server by its own variables and files alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.temporal.support.secure_frontend import (
    ClientFiles,
    SecureFrontend,
    secure_frontend,
    write_files,
)

from streamq.devserver import TemporalDevServer

from .command import Cli, Finished, Inside, one_error

KEY = "key-that-no-message-may-show"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def frontend(temporal: TemporalDevServer, authority: trustme.CA) -> Iterator[SecureFrontend]:
    with secure_frontend(
        temporal.address, authority.issue_cert("localhost"), client_ca=authority, api_key=KEY
    ) as running:
        yield running


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> ClientFiles:
    return write_files(tmp_path / "keys", authority, authority.issue_cert("me@example.org"))


@pytest.fixture
def variables(frontend: SecureFrontend, files: ClientFiles) -> dict[str, str]:
    return {
        "TEMPORAL_ADDRESS": frontend.address,
        "TEMPORAL_API_KEY": KEY,
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(files.ca),
        "TEMPORAL_TLS_CLIENT_CERT_PATH": str(files.cert),
        "TEMPORAL_TLS_CLIENT_KEY_PATH": str(files.key),
    }


@pytest.mark.full
def test_demo_runs_on_a_secured_server(
    cli: Cli, frontend: SecureFrontend, variables: dict[str, str]
) -> None:
    """Whoever has Temporal Cloud tries streamq there first."""
    found = cli.run("demo", "--pace", "0", env=variables)
    assert found.code == 0, found.err
    assert f"Temporal at {frontend.address}\n" in found.out
    assert "RespondWorkflowTaskCompleted" in frontend.calls


def test_sweep_and_doctor_use_a_profile(
    inside: Inside, frontend: SecureFrontend, files: ClientFiles
) -> None:
    """A file in the home directory configures all that talks to Temporal."""
    path = inside.directory / ".config" / "temporalio" / "temporal.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"""
[profile.prod]
address = "{frontend.address}"
api_key = "{KEY}"
tls = {{ server_ca_cert_path = "{files.ca}", client_cert_path = "{files.cert}",
client_key_path = "{files.key}" }}
""".replace(",\nclient_key", ", client_key")
    )
    env = {"HOME": str(inside.directory), "TEMPORAL_PROFILE": "prod", "XDG_CONFIG_HOME": ""}
    scope = ("--prefix", "secured")
    doctor, scheduled = inside.run_each(
        [["doctor"], ["sweep", *scope, "--schedule", "1h", "--task-queue", "q"]], env=env
    )
    assert doctor.code == 0, doctor.out
    assert f"default at {frontend.address}" in doctor.out.replace("\n", " ")
    assert scheduled.code == 0, scheduled.err
    config = json.loads(inside.run("config", "--json", env=env).out)["settings"]
    address = next(each for each in config if each["variable"] == "STREAMQ_TEMPORAL_ADDRESS")
    assert (address["value"], address["source"]) == (frontend.address, "Temporal's profile")
    removed = inside.run("sweep", *scope, "--unschedule", env=env)
    assert removed.out.endswith("deleted\n")
    assert {"CreateSchedule", "DeleteSchedule", "DescribeNamespace"} <= {*frontend.calls}


def test_refusal_is_one_line_without_secrets(
    inside: Inside, files: ClientFiles, variables: dict[str, str]
) -> None:
    """An error is pasted into chats and tickets."""
    text = files.key.read_text()
    expired = {**variables, "TEMPORAL_API_KEY": "old"}
    pem = {**variables, "STREAMQ_TEMPORAL_TLS_CLIENT_KEY": text}
    sweep = ["sweep", "--unschedule"]
    refused, doctor = inside.run_each([sweep, ["doctor"]], env=expired)
    wrong, config = inside.run_each([sweep, ["config"]], env=pem)
    assert "has expired" in one_error(refused)
    assert doctor.code == 1
    assert "has PEM text where the path of a file is expected" in one_error(wrong)

    def shown(finished: Finished) -> str:
        return finished.out + finished.err

    assert text.splitlines()[1] not in shown(wrong) + shown(config)
    assert KEY not in shown(refused) + shown(doctor) + shown(wrong) + shown(config)
