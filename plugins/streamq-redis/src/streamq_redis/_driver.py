"""Opens queues, after checking that the server can carry them.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from streamq import ConfigurationError
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
    close_all,
    closed_error,
    translated_errors,
)

from ._errors import BACKEND, to_streamq
from ._queue import RedisQueue
from ._settings import RedisSettings
from .doctor._examination import examine
from .doctor._serving import is_too_old, mode_problem
from .embedded import EmbeddedRedis
from .requests._handshake import Connector


class RedisDriver(Driver[RedisSettings]):
    """One Redis Stream per stream, on Redis or Valkey."""

    name = BACKEND
    summary = "Redis or Valkey: many machines, about a millisecond, fencing by the server"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=True,
        max_record_bytes=64 * 2**20,
        latency=LatencyClass.MILLISECONDS,
    )
    settings_type = RedisSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: RedisSettings) -> ChunkQueue:
        """Connect, and check that the server can do what is needed.

        The queue declares ``durable`` only if the server writes every record to its append-only
        file before it answers (``appendonly yes``, ``appendfsync always``), evicts nothing
        (``maxmemory-policy noeviction``), and if its ACL lets us see these settings. After each
        reconnection it declares what the server of that moment can.

        Raises:
            BackendUnavailableError: The server cannot be reached in time.
            AccessDeniedError: It refuses our credentials.
            ConfigurationError: It is too old, a node of a cluster, or a Sentinel.
        """
        undecided = dataclasses.replace(cls.capabilities, durable=False)
        queue = RedisQueue(options, settings, undecided)
        try:
            server = await queue.start()
            if is_too_old(server.version):
                raise ConfigurationError(
                    f"the server has version {server.version or 'unknown'}; Redis 6.2 or newer, or "
                    "Valkey, is needed",
                    backend=BACKEND,
                )
            if problem := mode_problem(server.mode):
                what, remedy = problem
                raise ConfigurationError(f"the server is {what}; {remedy}", backend=BACKEND)
        except BaseException:
            await queue.aclose()
            raise
        return queue

    @classmethod
    async def examine(cls, options: QueueOptions, settings: RedisSettings) -> Sequence[Finding]:
        """Examine the server's configuration and the user's permissions; change nothing."""
        connector = Connector(settings)
        translate = partial(
            to_streamq, address=connector.address, keys=settings.key_space().granted
        )
        with translated_errors(translate):
            connection = await connector.connect()
            try:
                return await examine(connection, settings, connector.address)
            finally:
                connection.drop(closed_error(BACKEND))
                await close_all(connector.gone)

    @classmethod
    def embedded(
        cls, settings: RedisSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an embedded server, unless a URL is configured."""
        return None if "url" in settings.model_fields_set else _embedded()


@contextlib.contextmanager
def _embedded() -> Iterator[Mapping[str, str]]:
    with EmbeddedRedis() as server:
        yield {"STREAMQ_REDIS_URL": server.url}
