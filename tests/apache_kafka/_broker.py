"""Runs one process of Apache Kafka: broker and controller, alone or in a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamq import ConfigurationError
from streamq.devserver import DevServer, free_port

from ._archive import shared_archive
from ._jars import class_path, find_java

_CLUSTER_ID = "c3RyZWFtcS1rYWZrYS1kZQ"
_READY = b"Kafka Server started"
# For a quick start and little memory, and not for throughput over weeks.
_JVM = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx384m"),
    *("-Djava.net.preferIPv4Stack=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)
_FORMAT_SECONDS = 60.0


class ApacheKafka(DevServer):
    """A loopback Apache Kafka in KRaft mode that is broker and controller in one process.

    Topics have to be created. Groups and transactions work, with one partition for each.

    Args:
        port: Port of the plain listener; 0 takes a free one.
        data_dir: Where the server keeps its files; by default a temporary directory.
        advertised_port: Adds a plain listener, :attr:`proxied_port`, that sends its clients to
            this port: the port of a proxy in front of it.
        users: Passwords by name. They add a listener, :attr:`sasl_port`, that needs a login with
            PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, or with OAUTHBEARER and a token without a
            signature (a JWS with ``alg`` of ``none``; its ``sub`` is the user).
        certificate: A PEM file of a private key (PKCS #8) and its chain. It adds a listener,
            :attr:`tls_port`. With users it adds another one, :attr:`sasl_tls_port`, that needs a
            login over TLS.
        node_id: Number of this node in its cluster.
        voters: Controller ports of all nodes of the cluster by their number, including this node;
            by default the node is alone.
        properties: More settings of the server; they override all others.
        cluster_id: Id of the cluster, 16 bytes in Base64 without padding.
    """

    backend = "kafka"

    def __init__(
        self,
        *,
        port: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        advertised_port: int | None = None,
        users: Mapping[str, str] | None = None,
        certificate: Path | None = None,
        node_id: int = 1,
        voters: Mapping[int, int] | None = None,
        properties: Mapping[str, str] | None = None,
        cluster_id: str = _CLUSTER_ID,
    ) -> None:
        # Before it stops, a broker hands over its partitions. Several JVMs that start at the same
        # time on few processors take a while.
        super().__init__(port=port, data_dir=data_dir, stop_seconds=10.0, start_seconds=60.0)
        self.proxied_port, self.sasl_port, self.tls_port, self.sasl_tls_port = (
            free_port() for _ in range(4)
        )
        self.node_id = node_id
        self._advertised_port = advertised_port
        self._users = dict(users or {})
        self._certificate = certificate
        self._voters = dict(voters or {node_id: free_port()})
        self._properties = dict(properties or {})
        self._cluster_id = cluster_id

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line; formats the storage first, unless that has been done.

        Raises:
            ConfigurationError: There is no Java, or no Kafka.
        """
        start = [find_java(), *_JVM, *self._sharing(), "-cp", class_path()]
        properties = data_dir / "server.properties"
        lines = {**self._describe(data_dir), **self._properties}
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        if not (data_dir / "log" / "meta.properties").exists():
            self._format([*start, "kafka.tools.StorageTool", "format"], properties)
        return [*start, "kafka.Kafka", str(properties)]

    def answers(self, log: Path) -> bool:
        """Whether it reports that it has started, and accepts connections."""
        # Its own report first: on a port that is taken, another server would answer.
        if _READY not in log.read_bytes():
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def reason(self, output: str) -> str:
        """Return the exceptions of a stack trace, or the last lines if there is none."""
        lines = [line for line in output.splitlines() if "Exception: " in line]
        return " / ".join(lines[-2:]) or super().reason(output)

    def _sharing(self) -> Sequence[str]:
        return [f"-XX:SharedArchiveFile={shared_archive(_make_archive)}", "-Xshare:auto"]

    def _describe(self, data_dir: Path) -> dict[str, str]:
        listeners = {"PLAINTEXT": ("PLAINTEXT", self.port, self.port)}
        if self._advertised_port:
            listeners["PROXIED"] = ("PLAINTEXT", self.proxied_port, self._advertised_port)
        if self._users:
            listeners["SASL"] = ("SASL_PLAINTEXT", self.sasl_port, self.sasl_port)
        if self._certificate is not None:
            listeners["TLS"] = ("SSL", self.tls_port, self.tls_port)
        if self._users and self._certificate is not None:
            listeners["SASL_TLS"] = ("SASL_SSL", self.sasl_tls_port, self.sasl_tls_port)
        controller = self._voters[self.node_id]
        alone = len(self._voters) == 1
        replicas = str(min(len(self._voters), 3))
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": ",".join(
                f"{node}@127.0.0.1:{port}" for node, port in self._voters.items()
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(
                [f"CONTROLLER://127.0.0.1:{controller}"]
                + [f"{name}://127.0.0.1:{port}" for name, (_, port, _) in listeners.items()]
            ),
            "advertised.listeners": ",".join(
                f"{name}://127.0.0.1:{port}" for name, (_, _, port) in listeners.items()
            ),
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT"]
                + [f"{name}:{protocol}" for name, (protocol, _, _) in listeners.items()]
            ),
            "log.dirs": str(data_dir / "log"),
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1" if alone else "2",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            # The cluster notices within seconds that a node was killed or is back.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "400",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "group.initial.rebalance.delay.ms": "0",
        }
        for name, (protocol, _, _) in listeners.items():
            prefix = f"listener.name.{name.lower()}"
            if protocol.startswith("SASL"):
                lines |= _sasl(prefix, self._users)
            if protocol.endswith("SSL"):
                lines |= {
                    f"{prefix}.ssl.keystore.type": "PEM",
                    f"{prefix}.ssl.keystore.location": str(self._certificate),
                }
        return lines

    def _format(self, command: Sequence[str], properties: Path) -> None:
        scram = [
            option
            for name, password in self._users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for option in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        run = subprocess.run(
            [*command, "-t", self._cluster_id, "-c", str(properties), *scram],
            check=False,
            timeout=_FORMAT_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if run.returncode:
            said = self.reason(run.stdout.decode(errors="replace"))
            raise ConfigurationError(
                f"Apache Kafka cannot format its storage: {said}", backend=self.backend
            )


def _sasl(prefix: str, users: Mapping[str, str]) -> dict[str, str]:
    passwords = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    package = "org.apache.kafka.common.security"
    modules = {
        "PLAIN": f"plain.PlainLoginModule required {passwords}",
        "SCRAM-SHA-256": "scram.ScramLoginModule required",
        "SCRAM-SHA-512": "scram.ScramLoginModule required",
        "OAUTHBEARER": "oauthbearer.OAuthBearerLoginModule required",
    }
    lines = {
        f"{prefix}.{mechanism.lower()}.sasl.jaas.config": f"{package}.{what};"
        for mechanism, what in modules.items()
    }
    return lines | {f"{prefix}.sasl.enabled.mechanisms": ",".join(modules)}


class _Training(ApacheKafka):
    """Apache Kafka that writes the archive when it stops."""

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self._archive = archive

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line, which archives the classes that the server has loaded."""
        java, *arguments = super().command(data_dir)
        return [java, f"-XX:ArchiveClassesAtExit={self._archive}", *arguments]

    def _sharing(self) -> Sequence[str]:
        return []


def _make_archive(path: Path) -> None:
    with _Training(path):
        pass
