"""Opens queues, after checking that the server can carry them.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

from streamq import ConfigurationError
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    LatencyClass,
    QueueOptions,
)

from ._errors import BACKEND
from ._queue import RedisQueue
from ._settings import RedisSettings
from .embedded import EmbeddedRedis

_OLDEST = (6, 2)


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
        file before it answers (``appendonly yes``, ``appendfsync always``), and if its ACL lets us
        see these settings.

        Raises:
            BackendUnavailableError: The server cannot be reached in time.
            AccessDeniedError: It refuses our credentials.
            ConfigurationError: It is too old, or a node of a cluster.
        """
        undecided = dataclasses.replace(cls.capabilities, durable=False)
        queue = RedisQueue(options, settings, undecided)
        try:
            server = await queue.start()
            numbers = tuple(int(part) for part in server.version.split(".")[:2] if part.isdigit())
            if numbers < _OLDEST:
                raise ConfigurationError(
                    f"the server has version {server.version or 'unknown'}; Redis 6.2 or newer, or "
                    "Valkey, is needed",
                    backend=BACKEND,
                )
            if server.is_cluster:
                raise ConfigurationError(
                    "the server is a node of a Redis Cluster, which streamq-redis does not support "
                    "yet; use a single server, with replicas if you like",
                    backend=BACKEND,
                )
        except BaseException:
            await queue.aclose()
            raise
        return queue

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
