"""Finds Java, and resolves the jars of Apache Kafka through Maven."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from streamq import ConfigurationError

KAFKA_VERSION = "4.4.0"
"""The version of Apache Kafka."""

# Without a logger Kafka would not say why it does not start. This is SLF4J's simplest logger, in a
# version that fits the API that this Kafka uses.
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamq</groupId>
  <artifactId>apache-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
_MAVEN_SECONDS = 300.0


def find_java() -> str:
    """Return the Java to run: the one in ``JAVA_HOME``, or else the one on the path.

    Raises:
        ConfigurationError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "java is not on the path"
        raise ConfigurationError(
            f"Apache Kafka needs Java 17 or newer: {where}; install it, such as with "
            "'apt-get install openjdk-17-jre-headless'",
            backend="kafka",
        )
    return found


def cache_directory() -> Path:
    """Return the directory for files that make the next start quicker; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamq"


@functools.cache
def class_path() -> str:
    """Return Apache Kafka's class path; downloads jars that the local repository lacks.

    The first time takes about ten seconds and 45 MB.

    Raises:
        ConfigurationError: There is no Maven, or it cannot download the jars; the message ends with
            its output.
    """
    name = hashlib.sha256(_POM.encode()).hexdigest()[:12]
    remembered = cache_directory() / f"kafka-{KAFKA_VERSION}-{name}.classpath"
    with contextlib.suppress(OSError):
        known = remembered.read_text(encoding="utf-8")
        if all(Path(jar).exists() for jar in known.split(os.pathsep)):
            return known
    resolved = _resolve()
    with contextlib.suppress(OSError):  # without the file, Maven only takes two seconds again
        remembered.parent.mkdir(parents=True, exist_ok=True)
        partial = remembered.with_suffix(f".{os.getpid()}")
        partial.write_text(resolved, encoding="utf-8")
        partial.replace(remembered)
    return resolved


def _resolve() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError(
            "Apache Kafka's jars are fetched by Maven: mvn is not on the path; install it, such as "
            "with 'apt-get install maven'",
            backend="kafka",
        )
    with tempfile.TemporaryDirectory(prefix="streamq-kafka-") as directory:
        pom, output = Path(directory, "pom.xml"), Path(directory, "class-path")
        pom.write_text(_POM, encoding="utf-8")
        command = [
            *(maven, "--batch-mode", "--quiet", "--file", str(pom)),
            *("dependency:build-classpath", f"-Dmdep.outputFile={output}"),
        ]
        try:
            run = subprocess.run(
                command,
                check=False,
                timeout=_MAVEN_SECONDS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ConfigurationError(f"cannot run {maven}: {exc}", backend="kafka") from exc
        if run.returncode or not output.exists():
            said = run.stdout.decode(errors="replace").strip().splitlines()[:3]
            raise ConfigurationError(
                f"Maven cannot fetch Apache Kafka {KAFKA_VERSION}: {' / '.join(said)}",
                backend="kafka",
            )
        return output.read_text(encoding="utf-8").strip()
