"""Starts ElasticMQ, a second implementation of SQS, if Java and Maven are installed."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.programs import missing, program

from streamq.devserver import DevServer

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


def find_classpath(directory: Path) -> str:
    """Return the classpath of ElasticMQ, fetched with Maven; skip the test if that is impossible.

    Args:
        directory: An empty directory.
    """
    maven = program("mvn", package="maven")
    program("java", package="openjdk-17-jre-headless")
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
        missing(f"Maven did not fetch ElasticMQ within {_MAVEN_SECONDS} s")
    if done.returncode:
        missing(f"Maven cannot fetch ElasticMQ: {done.stdout.strip()[:300]}")
    return (directory / "classpath").read_text()
