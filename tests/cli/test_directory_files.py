"""Files of the directory in which a command is run: it may be anybody's."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .command import Cli, Inside, one_error

MARK = "open('was-run', 'a').write(__name__)\n"
SHADOWED = ("json", "typer", "rich", "redis", "streamq_redis", "streamq", "sitecustomize", "evil")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody's server, which waits for credentials."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def was_called(listener: socket.socket) -> bool:
    """Whether anybody has connected; a connection waits in the backlog."""
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def completing(typed: str) -> dict[str, str]:
    words = f"streamq {typed}".split()
    return {
        "_STREAMQ_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }


def test_no_code_of_the_directory_runs(cli: Cli) -> None:
    """Whoever unpacks an archive and looks into it has not asked for its code."""
    for name in SHADOWED:
        (cli.directory / f"{name}.py").write_text(MARK)
    info = cli.directory / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[streamq.drivers]\nevil = evil:Driver\n")
    script = [str(Path(sys.executable).with_name("streamq"))]
    assert cli.finish(cli.start("backends", program=script)).code == 0
    (cli.directory / ".env").write_text("STREAMQ_DATA_CONVERTER=evil:converter\n")
    process = cli.start("tail", "x", program=script)
    assert cli.finish(cli.start(program=script, env=completing("tail x"))).err == ""
    message = one_error(cli.finish(process))
    assert f"STREAMQ_DATA_CONVERTER in {cli.directory}/.env names code" in message
    assert f"STREAMQ_TRUSTED_DIRECTORIES={cli.directory}" in message
    assert not (cli.directory / "was-run").exists()


KAFKA = {"STREAMQ_BACKEND": "kafka", "STREAMQ_KAFKA_SASL_PASSWORD": "hunter2"}
KAFKA_USER = {**KAFKA, "STREAMQ_KAFKA_SASL_USERNAME": "me"}
REDIRECTIONS = {
    "server": (KAFKA_USER, ".env", "STREAMQ_KAFKA_BOOTSTRAP_SERVERS={address}", "SASL_PASSWORD"),
    "server in a table": (
        KAFKA_USER,
        "streamq.toml",
        '[kafka]\nbootstrap_servers = "{address}"',
        "bootstrap_servers in table [kafka] of ",
    ),
    "file named by a relative path": (
        {**KAFKA_USER, "STREAMQ_CONFIG_FILE": "x.toml"},
        "x.toml",
        '[kafka]\nbootstrap_servers = "{address}"',
        "x.toml",
    ),
    "no encryption": (
        KAFKA_USER,
        ".env",
        "STREAMQ_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT",
        "STREAMQ_KAFKA_SECURITY_PROTOCOL in ",
    ),
    "authorities": (KAFKA_USER, ".env", "STREAMQ_KAFKA_TLS_CA_FILE=ca.pem", "TLS_CA_FILE in "),
    "function": (
        {"STREAMQ_BACKEND": "kafka"},
        ".env",
        "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER=evil:token",
        "names code",
    ),
    "Temporal": (
        {"TEMPORAL_API_KEY": "hunter2"},
        ".env",
        "STREAMQ_TEMPORAL_ADDRESS={address}",
        "TEMPORAL_API_KEY",
    ),
    "Temporal in a file": (
        {"STREAMQ_TEMPORAL_API_KEY": "hunter2"},
        "streamq.toml",
        'temporal_address = "{address}"',
        "temporal_address in ",
    ),
    "AWS": (
        {"STREAMQ_BACKEND": "sqs", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hunter2"},
        ".env",
        "STREAMQ_SQS_ENDPOINT_URL=http://{address}",
        "credentials of AWS",
    ),
    "variable in a value": (
        {"STREAMQ_BACKEND": "redis", "DATABASE_SECRET": "hunter2"},
        ".env",
        "STREAMQ_REDIS_URL=redis://:${{DATABASE_SECRET}}@{address}",
        "takes DATABASE_SECRET from the environment",
    ),
}


@pytest.mark.parametrize(
    ("env", "file", "text", "named"), REDIRECTIONS.values(), ids=[*REDIRECTIONS]
)
def test_credentials_go_to_no_server_that_a_directory_names(
    inside: Inside,
    listener: socket.socket,
    env: dict[str, str],
    file: str,
    text: str,
    named: str,
) -> None:
    """A password of the environment belongs to the server that its owner meant."""
    (inside.directory / file).write_text(text.format(address=address(listener)))
    message = one_error(inside.run("doctor", env=env))
    assert named in message
    assert str(inside.directory / file) in message
    assert "hunter2" not in message
    assert not was_called(listener)


def test_a_key_press_connects_to_no_server_of_a_directory(
    cli: Cli, listener: socket.socket
) -> None:
    """Completion is asked for names; neither the address nor the credentials may be anybody's."""
    url = f"redis://me:own@{address(listener)}/0"
    (cli.directory / ".env").write_text(f"STREAMQ_BACKEND=redis\nSTREAMQ_REDIS_URL={url}\n")
    assert cli.run(env=completing("tail x")).out.strip() == ""
    assert not was_called(listener)
    cli.run("ls", env={"STREAMQ_RETRY_SECONDS": "0", "STREAMQ_OPERATION_SECONDS": "1"})
    assert was_called(listener)  # a command was asked for


@pytest.mark.parametrize("way", ["the directory", "the file", "its own credentials"])
def test_what_is_asked_for_works(inside: Inside, way: str) -> None:
    """Projects keep such files on purpose, and say so once."""
    path = inside.directory / "streamq.toml"
    path.write_text('backend = "kafka"\n[kafka]\nbootstrap_servers = "127.0.0.1:1"\n')
    env = {"STREAMQ_KAFKA_SASL_PASSWORD": "hunter2", "STREAMQ_KAFKA_SASL_USERNAME": "me"}
    env["STREAMQ_KAFKA_SECURITY_PROTOCOL"] = "SASL_PLAINTEXT"
    if way == "the directory":
        env["STREAMQ_TRUSTED_DIRECTORIES"] = f"/somewhere:{inside.directory}"
    elif way == "the file":
        env["STREAMQ_CONFIG_FILE"] = str(path)
    else:
        path.write_text(path.read_text() + 'sasl_password = "hunter2"\n')
        del env["STREAMQ_KAFKA_SASL_PASSWORD"]
    done = inside.run("config", env=env)
    assert done.code == 0, done.err
    assert str(path) in done.out
    assert "hunter2" not in done.out
    message = one_error(inside.run("config", env={**env, "STREAMQ_TRUSTED_DIRECTORIES": "."}))
    assert "absolute" in message


def test_a_wrong_value_is_reported_where_it_stands(inside: Inside) -> None:
    """The variable that is not set is not the place to look."""
    path = inside.directory / "streamq.toml"
    path.write_text('ttl_seconds = "soon"\n')
    assert f"ttl_seconds in {path}: " in one_error(inside.run("config"))
    path.write_text('[sqlite]\nbusy_seconds = "soon"\n')
    assert f"busy_seconds in table [sqlite] of {path}: " in one_error(inside.run("ls"))
    path.write_text('[streamq]\nbackend = "redis"\n')
    assert "stand at the top of the file" in one_error(inside.run("ls"))
    path.write_text('temporal_tls_server_ca = "gone.pem"\n')
    message = one_error(inside.run("demo"))
    assert f"is set by temporal_tls_server_ca in {path}" in message
    path.unlink()
    dotenv = inside.directory / ".env"
    dotenv.write_text("STREAMQ_TTL_SECONDS=soon\n")
    assert f"STREAMQ_TTL_SECONDS in {dotenv}: " in one_error(inside.run("ls"))
    dotenv.write_text("STREAMQ_TLL_SECONDS=5\n")
    assert f"unknown variable STREAMQ_TLL_SECONDS in {dotenv}" in one_error(inside.run("ls"))


@pytest.mark.parametrize(
    "line",
    [
        'token_issuers = "issuers.toml"',
        'token_key = "0123456789abcdef0123456789abcdef"',
        'gateway_anonymous = "read"',
        'gateway_ticket_key = "0123456789abcdef0123456789abcdef"',
    ],
)
def test_a_directory_lets_nobody_else_read(line: str, inside: Inside) -> None:
    """Whoever asks for tokens in the environment has not asked for the issuers of a checkout."""
    (inside.directory / "streamq.toml").write_text(line + "\n")
    (inside.directory / "our.key").write_text("s" * 40)
    assert inside.run("config").code == 0  # alone it only narrows
    env = {"STREAMQ_TOKEN_KEY_FILE": str(inside.directory / "our.key")}
    message = one_error(inside.run("config", env=env))
    assert "decides who may read besides those of STREAMQ_TOKEN_KEY_FILE" in message
    trusted = {**env, "STREAMQ_TRUSTED_DIRECTORIES": str(inside.directory)}
    assert inside.run("config", env=trusted).code == 0


@pytest.mark.parametrize("name", ["PUSH_NETWORKS=10.0.0.0/8", "PUSH_HTTP=true"])
def test_a_directory_opens_no_network_to_clients(name: str, inside: Inside) -> None:
    """Clients choose where notifications go; a checkout does not choose what they reach by it."""
    (inside.directory / ".env").write_text(f"STREAMQ_A2A_{name}\n")
    message = one_error(inside.run("config"))
    assert "decides what clients may have this process send requests to" in message
    trusted = {"STREAMQ_TRUSTED_DIRECTORIES": str(inside.directory)}
    assert inside.run("config", env=trusted).code == 0


def test_a_key_of_tokens_is_no_credential_of_a_server(inside: Inside) -> None:
    """It is sent to nobody, so that an address of the directory can do nothing with it."""
    (inside.directory / "streamq.toml").write_text('temporal_address = "temporal:7233"\n')
    assert inside.run("config", env={"STREAMQ_TOKEN_KEY": "s" * 40}).code == 0
