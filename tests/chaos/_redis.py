"""Runs a primary and a replica that change roles, with a user whose password is rotated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import redis.asyncio
from redis.exceptions import RedisError

from streamq.devserver import free_port
from streamq_redis.embedded import EmbeddedRedis

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import PASSWORD, SERVER, Fault, FaultKind, Source

USER = "streamq"
_READY_SECONDS = 4.0
_HAND_OVER_MILLISECONDS = 2_000
_ROLES_SECONDS = 60.0
_AGAIN_SECONDS = 0.1
_OPTIONS = ("--appendfsync", "always", "--repl-diskless-sync-delay", "0")

Client: TypeAlias = Any
"""A client of redis-py, whose ``execute_command`` has no types."""


class RedisPair(Backend):
    """Two servers, of which one is the primary. Both log every write before they answer."""

    name = "redis"
    sources = (
        Source(5, FaultKind.KILL, (SERVER,), 0.05, 1.0),
        Source(3, FaultKind.PAUSE, (SERVER,), 0.2, 3.0),
        Source(4, FaultKind.FAIL_OVER, (SERVER,), 1.5, 4.5),
        Source(3, FaultKind.ROTATE, (PASSWORD,), 0.1, 1.0),
        Source(3, FaultKind.REMOVE, (PASSWORD,), 0.1, 1.5),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.password_file = self.credentials_file = directory / "password"
        self._password = secrets.token_hex(8)
        self.password_file.write_text(self._password)
        self._servers = [self._server(directory / f"users-{number}.acl") for number in (1, 2)]
        self.victims = {SERVER: PrimaryVictim(self)}

    @property
    def primary(self) -> EmbeddedRedis:
        """The server that takes writes."""
        return self._servers[0]

    @property
    def port(self) -> int:  # type: ignore[override]
        """Port of the primary."""
        return self.primary.port

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at an address, a link's."""
        return {
            "STREAMQ_REDIS_URL": f"redis://{USER}@{address}/0",
            "STREAMQ_REDIS_PASSWORD_FILE": str(self.password_file),
            # Short, so that half-open connections are detected many times within a run.
            "STREAMQ_REDIS_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_REDIS_OPERATION_TIMEOUT_SECONDS": "2",
            "STREAMQ_REDIS_BLOCK_SECONDS": "1",
        }

    async def carry_out(self, fault: Fault) -> bool:
        """Change the roles of the servers, or the password."""
        if fault.kind is FaultKind.FAIL_OVER:
            return await self.fail_over()
        if fault.kind is FaultKind.ROTATE:
            await self.rotate(fault.seconds)
        else:
            await self.without_password_file(fault.seconds)
        return True

    async def start(self) -> None:
        """Start both."""
        for server in self._servers:
            await asyncio.to_thread(server.start)
        replica = self._servers[1]
        async with self._client(replica) as client:
            await client.replicaof("127.0.0.1", self.primary.port)
        await self._until(replica, lambda facts: facts["master_link_status"] == "up")

    def stop(self) -> None:
        """Stop both."""
        for server in self._servers:
            server.stop()

    async def fail_over(self) -> bool:
        """Make the replica the primary; return whether it was able to take over.

        The old primary stays up as a replica, with its connections. It hands over everything that
        it has acknowledged, so that nothing may be lost. Neither may be stopped meanwhile.

        Raises:
            TimeoutError: The servers do not agree which of them is the primary.
        """
        old, new = self._servers
        try:
            async with asyncio.timeout(_READY_SECONDS):
                # A server that is still writing its log anew would lose what it took meanwhile.
                await self._until(new, _is_ready)
        except (RedisError, TimeoutError):
            return False
        with contextlib.suppress(RedisError):  # it had to wait: what came of it is seen below
            async with self._client(old) as client:
                await client.execute_command(
                    "FAILOVER", "TO", "127.0.0.1", new.port, "TIMEOUT", _HAND_OVER_MILLISECONDS
                )
        # Not aborted once it is under way: each could then take itself for the primary.
        async with asyncio.timeout(_ROLES_SECONDS):
            self._servers = await self._by_role()
        return self.primary is new

    async def _by_role(self) -> list[EmbeddedRedis]:
        """Return primary and replica, as soon as both servers say which they are."""
        while True:
            roles: dict[object, EmbeddedRedis] = {}
            with contextlib.suppress(RedisError):
                for server in self._servers:
                    async with self._client(server) as client:
                        facts = await client.info("replication")
                    if facts["master_failover_state"] == "no-failover":
                        roles[facts["role"]] = server
            if len(roles) == len(self._servers):
                return [roles["master"], roles["slave"]]
            await asyncio.sleep(_AGAIN_SECONDS)

    async def rotate(self, seconds: float) -> None:
        """Replace the password; after some seconds the old one is refused and connections end."""
        old, new = self._password, secrets.token_hex(8)
        await self._change(f">{new}")
        self._write(new)
        await asyncio.sleep(seconds)
        await self._change(f"<{old}")
        await self.disconnect()

    async def without_password_file(self, seconds: float) -> None:
        """Remove the password's file and end all connections; bring it back after some seconds."""
        self.password_file.unlink()
        try:
            await self.disconnect()
            await asyncio.sleep(seconds)
        finally:
            self._write(self._password)

    async def disconnect(self) -> None:
        """End the connections of the user, on both servers."""

        async def kill(client: Client) -> None:
            await client.execute_command("CLIENT", "KILL", "USER", USER)

        await self._everywhere(kill)

    async def _change(self, rule: str) -> None:
        async def change(client: Client) -> None:
            await client.execute_command("ACL", "SETUSER", USER, rule)
            await client.execute_command("ACL", "SAVE")

        await self._everywhere(change)

    async def _everywhere(self, act: Callable[[Client], Awaitable[None]]) -> None:
        """Do something on both servers, each as soon as it answers."""
        for server in tuple(self._servers):
            while True:
                try:
                    async with self._client(server) as client:
                        await act(client)
                    break
                except RedisError:  # it was killed, or is paused
                    await asyncio.sleep(_AGAIN_SECONDS)

    async def _until(
        self, server: EmbeddedRedis, condition: Callable[[dict[str, object]], bool]
    ) -> None:
        async with self._client(server) as client:
            while not condition(await client.info()):  # noqa: ASYNC110 - roles have no event
                await asyncio.sleep(0.02)

    def _write(self, password: str) -> None:
        self._password = password
        written = self.password_file.with_suffix(".new")
        written.write_text(password)
        os.replace(written, self.password_file)

    def _server(self, users: Path) -> EmbeddedRedis:
        users.write_text(
            f"user default on nopass ~* &* +@all\nuser {USER} on >{self._password} ~* &* +@all\n"
        )
        arguments = (*_OPTIONS, "--aclfile", str(users))
        return EmbeddedRedis(port=free_port(), appendonly=True, arguments=arguments)

    @staticmethod
    def _client(server: EmbeddedRedis) -> Client:
        return redis.asyncio.Redis.from_url(
            server.url, decode_responses=True, socket_timeout=2.0, socket_connect_timeout=2.0
        )


def _is_ready(facts: dict[str, object]) -> bool:
    return (
        facts.get("master_link_status") == "up"
        and not facts["loading"]
        and not facts["aof_rewrite_in_progress"]
        and not facts["aof_rewrite_scheduled"]
    )


class PrimaryVictim(ServerVictim):
    """Whichever of the two servers is the primary."""

    def __init__(self, pair: RedisPair) -> None:
        super().__init__(SERVER, pair.primary)
        self._pair = pair

    def kill(self) -> None:
        """End the primary as a crash would; :meth:`start` starts the same one again."""
        self._server = self._pair.primary
        super().kill()

    def pause(self) -> int | None:
        """Stop the primary."""
        self._server = self._pair.primary
        return super().pause()
