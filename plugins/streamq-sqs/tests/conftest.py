"""Servers for the tests, started here and stopped here, and nobody's real credentials.

With ``STREAMQ_TEST_AWS=1`` some tests use the account that the environment leads to, too.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from streamq.devserver import DevServer
from streamq.driver import StreamId
from streamq.testing import OpenQueue, new_stream, queue_factory
from streamq_aws.embedded import Ministack
from streamq_sqs import SqsDriver, SqsSettings

_ELASTICMQ = "1.6.9"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>none</groupId><artifactId>none</artifactId>
<version>1</version><dependencies><dependency><groupId>org.elasticmq</groupId>
<artifactId>elasticmq-server_2.13</artifactId><version>{version}</version></dependency>
</dependencies></project>"""
_CONFIG = """include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ bind-port = {port}, bind-hostname = "127.0.0.1" }}
rest-stats {{ enabled = false }}
"""
_MAVEN_SECONDS = 100


class ElasticMq(DevServer):
    """ElasticMQ, an SQS on the JVM that keeps requests by their attempt id.

    Args:
        classpath: Its jars.
    """

    backend = "ElasticMQ"

    def __init__(self, classpath: str) -> None:
        super().__init__(stop_seconds=0.2)
        self._classpath = classpath

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.address}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads there."""
        return {"AWS_ENDPOINT_URL": self.url}

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        config = data_dir / "elasticmq.conf"
        config.write_text(_CONFIG.format(port=self.port))
        options = ["-Xmx192m", "-XX:TieredStopAtLevel=1", f"-Dconfig.file={config}"]
        return ["java", *options, "-cp", self._classpath, "org.elasticmq.server.Main"]

    def answers(self, log: Path) -> bool:
        """Whether it lists queues."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/?Action=ListQueues&Version=2012-11-05")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@pytest.fixture(scope="session")
def aws() -> Iterator[Ministack]:
    """Return an emulator that all tests share."""
    with Ministack() as running:
        yield running


@pytest.fixture(scope="session")
def elasticmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElasticMq]:
    """Return another emulator, which knows ReceiveRequestAttemptId."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        pytest.skip("there is no java or no mvn to run ElasticMQ with")
    directory = tmp_path_factory.mktemp("elasticmq")
    (directory / "pom.xml").write_text(_POM.format(version=_ELASTICMQ))
    command = [maven, "-q", "-B", "dependency:build-classpath", "-Dmdep.outputFile=classpath"]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=_MAVEN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"Maven did not fetch ElasticMQ within {_MAVEN_SECONDS} s")
    if done.returncode:
        pytest.skip(f"Maven cannot fetch ElasticMQ: {done.stdout.strip()[:300]}")
    with ElasticMq((directory / "classpath").read_text()) as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one certificate to trust, so that no client reads a hundred: nothing here uses TLS."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def _environment(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    aws: Ministack,
    authority: Path,
) -> None:
    if "real_account" in request.fixturenames:
        return
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def settings() -> SqsSettings:
    """Return settings that lead to the emulator."""
    return SqsSettings(max_message_bytes=262_144)


@pytest.fixture
async def open_queue(settings: SqsSettings) -> AsyncIterator[OpenQueue]:
    """Return a function that opens a queue on the emulator."""
    async with queue_factory(SqsDriver, settings) as factory:
        yield factory


@pytest.fixture(scope="session")
def plain(aws: Ministack) -> Iterator[Any]:
    """Return a plain client, to look past the driver."""
    with aws.client("sqs") as client:
        yield client


@pytest.fixture
def stream() -> StreamId:
    """Return a stream that no other test uses."""
    return new_stream()
