"""Finds the backend of a run by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._schedule import Source, sources_of

if TYPE_CHECKING:
    from ._backend import Backend

BACKENDS = ("redis", "sqlite", "postgres", "kafka", "s3sns", "workflow_streams")
"""Names of the backends that can be broken; the first one is the default."""


def backend_type(name: str) -> type[Backend]:
    """Import what breaks a backend: only its own clients have to be installed."""
    if name == "redis":
        from ._redis import RedisPair

        return RedisPair
    if name == "sqlite":
        from ._sqlite import SqliteFile

        return SqliteFile
    if name == "postgres":
        from ._postgres import PostgresPair

        return PostgresPair
    if name == "kafka":
        from ._kafka import KafkaCluster

        return KafkaCluster
    if name == "s3sns":
        from ._s3sns import S3Account

        return S3Account
    from ._workflow_streams import HostedStreams

    return HostedStreams


def faults_of(name: str) -> tuple[Source, ...]:
    """Return what is broken in a run of a backend."""
    kind = backend_type(name)
    return sources_of(kind.sources, kind.links)
