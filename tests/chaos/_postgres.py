"""Runs a primary and a synchronous standby, with a user whose password is rotated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from streamq import BackendUnavailableError
from streamq.devserver import free_port
from streamq_postgres.embedded import (
    USER,
    EmbeddedPostgres,
    as_user,
    find_programs,
    user_for_servers,
)

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import PASSWORD, SERVER, Fault, FaultKind, Source

OWNER = "streamq"
"""The user of workers, readers and gateway; the server asks only this one for a password."""

SESSIONS = "sessions"
"""What the server runs for each connection of the owner."""

_ACCESS = f"""\
host all {OWNER} 127.0.0.1/32 scram-sha-256
host all {USER} 127.0.0.1/32 trust
host replication {USER} 127.0.0.1/32 trust
"""
_AGAIN_SECONDS = 0.1
_PROMOTION_SECONDS = 60
_CONNECT_SECONDS = 2


class PostgresPair(Backend):
    """A primary and a standby, which has each transaction before it is acknowledged."""

    name = "postgres"
    sources = (
        Source(5, FaultKind.KILL, (SERVER,), 0.05, 1.0),
        Source(3, FaultKind.PAUSE, (SERVER,), 0.2, 3.0),
        Source(5, FaultKind.FAIL_OVER, (SERVER,), 1.5, 4.5),
        Source(4, FaultKind.TERMINATE, (SESSIONS,)),
        Source(3, FaultKind.ROTATE, (PASSWORD,), 0.1, 1.0),
        Source(3, FaultKind.REMOVE, (PASSWORD,), 0.1, 1.5),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        directory.chmod(0o755)  # the server runs as another user
        self._password = secrets.token_hex(8)
        self._file = self.credentials_file = directory / "password"
        self._file.write_text(self._password)
        self._access = directory / "access.conf"
        self._access.write_text(_ACCESS)
        self._access.chmod(0o644)
        self._places: dict[int, Path] = {}
        self._standby: EmbeddedPostgres | None = None
        self.primary = self._server()
        """The server that takes writes."""
        self.victims = {SERVER: PrimaryVictim(self)}
        self._joining: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:  # type: ignore[override]
        """Port of the primary."""
        return self.primary.port

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at an address, a link's."""
        return {
            "STREAMQ_POSTGRES_URL": f"postgresql://{OWNER}@{address}/postgres",
            "STREAMQ_POSTGRES_PASSWORD_FILE": str(self._file),
            # Short, so that half-open connections are detected many times within a run.
            "STREAMQ_POSTGRES_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_POSTGRES_OPERATION_TIMEOUT_SECONDS": "2",
            "STREAMQ_POSTGRES_LOOKUP_SECONDS": "1",
        }

    async def start(self) -> None:
        """Start both."""
        await asyncio.to_thread(self.primary.start)
        role, password = sql.Identifier(OWNER), sql.Literal(self._password)
        await self.ask(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
        await self.ask(sql.SQL("GRANT CREATE ON DATABASE postgres TO {}").format(role))
        await self._join()

    def stop(self) -> None:
        """Stop both."""
        if self._joining is not None:
            self._joining.cancel()
        for server in (self.primary, self._standby):
            if server is not None:
                server.stop()

    async def carry_out(self, fault: Fault) -> bool:
        """Change the roles of the servers or the password, or end sessions."""
        if fault.kind is FaultKind.FAIL_OVER:
            return await self.fail_over()
        if fault.kind is FaultKind.TERMINATE:
            return await self.terminate()
        if fault.kind is FaultKind.ROTATE:
            await self._rotate(fault.seconds)
        else:
            await self._without_password_file(fault.seconds)
        return True

    async def fail_over(self) -> bool:
        """Kill the primary and let the standby take over; return whether it was able to.

        It has all that was acknowledged: no commit returns before the standby has it. Without a
        standby in step nothing is done.
        """
        new = self._standby
        if new is None or not await self.is_in_step():
            return False
        old = self.primary
        await asyncio.to_thread(old.kill)
        await self.ask(f"SELECT pg_promote(true, {_PROMOTION_SECONDS})", new)
        self.primary, self._standby = new, None
        # Alone for now: it must not wait for a standby that is still to be made.
        await self.ask("ALTER SYSTEM RESET synchronous_standby_names")
        await self.ask("SELECT pg_reload_conf()")
        self._joining = asyncio.create_task(self._replace(old))
        return True

    async def terminate(self) -> bool:
        """End the sessions of the owner; return whether there were any."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE usename = '{OWNER}' AND pid <> pg_backend_pid()"
        )
        return bool(await self.ask(query))

    async def is_in_step(self) -> bool:
        rows = await self.ask("SELECT sync_state FROM pg_stat_replication")
        return rows == [("sync",)]

    async def _replace(self, old: EmbeddedPostgres) -> None:
        """Make another standby in place of a server that has failed."""
        shutil.rmtree(self._places[old.port], ignore_errors=True)
        await self._join()

    async def _join(self) -> None:
        """Add a standby, as often as the primary fails meanwhile."""
        while True:
            server = self._server()
            place = self._places[server.port]
            place.mkdir(mode=0o700)
            user = user_for_servers()
            if user is not None:
                os.chown(place, user.pw_uid, user.pw_gid)
            if await self._copy(place / "data"):
                # While it catches up, the primary may be away for longer than it has patience.
                with contextlib.suppress(BackendUnavailableError):
                    await asyncio.to_thread(server.start)
                    break
            shutil.rmtree(place, ignore_errors=True)
            await asyncio.sleep(_AGAIN_SECONDS)
        self._standby = server
        await self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.ask("SELECT pg_reload_conf()")

    async def _copy(self, data: Path) -> bool:
        process = await asyncio.create_subprocess_exec(
            str(find_programs() / "pg_basebackup"),
            *("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-D", str(data)),
            *("-R", "--checkpoint=fast", "--no-sync", "-X", "stream"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            **as_user(user_for_servers()),
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()

    async def _rotate(self, seconds: float) -> None:
        """Replace the password; after some seconds the sessions of the old one end."""
        password = secrets.token_hex(8)
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        await self.ask(change.format(sql.Identifier(OWNER), sql.Literal(password)))
        self._write(password)
        await asyncio.sleep(seconds)
        await self.terminate()

    async def _without_password_file(self, seconds: float) -> None:
        """Remove the password's file and end all sessions; bring it back after some seconds."""
        self._file.unlink()
        try:
            await self.terminate()
            await asyncio.sleep(seconds)
        finally:
            self._write(self._password)

    def _write(self, password: str) -> None:
        self._password = password
        written = self._file.with_suffix(".new")
        written.write_text(password)
        os.replace(written, self._file)

    async def ask(self, query: Any, server: EmbeddedPostgres | None = None) -> list[Any]:
        """Run a statement as soon as the primary, or the given server, answers."""
        while True:
            url = (server or self.primary).url
            try:
                async with await psycopg.AsyncConnection.connect(
                    url, autocommit=True, connect_timeout=_CONNECT_SECONDS
                ) as client:
                    cursor = await client.execute(query)
                    return await cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:  # it was killed, or is paused
                await asyncio.sleep(_AGAIN_SECONDS)

    def _server(self) -> EmbeddedPostgres:
        port = free_port()
        place = self._places[port] = self.directory / f"server-{len(self._places) + 1}"
        options = {
            "hba_file": str(self._access),
            "max_connections": "200",
            "wal_keep_size": "256MB",
            "wal_receiver_status_interval": "1s",
        }
        arguments = [each for name, value in options.items() for each in ("-c", f"{name}={value}")]
        return EmbeddedPostgres(port=port, data_dir=place, arguments=arguments)


class PrimaryVictim(ServerVictim):
    """Whichever of the two servers is the primary, with all of its processes."""

    def __init__(self, pair: PostgresPair) -> None:
        super().__init__(SERVER, pair.primary)
        self._pair = pair

    def kill(self) -> None:
        """End the primary as a crash would; :meth:`start` starts the same one again."""
        self._server = self._pair.primary
        super().kill()

    def pause(self) -> int | None:
        """Stop the primary: first the process that starts the others."""
        self._server = self._pair.primary
        paused = super().pause()
        self._signal_sessions(signal.SIGSTOP)
        return paused

    def resume(self, pid: int) -> None:
        """Let the primary run again."""
        self._signal_sessions(signal.SIGCONT)
        super().resume(pid)

    def _signal_sessions(self, number: signal.Signals) -> None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = stat.read_text().rpartition(")")[2].split()[1]
                if int(parent) == self.pid:
                    os.kill(int(stat.parent.name), number)
