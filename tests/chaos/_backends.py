"""Finds the backend of a run by its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._schedule import Source, sources_of

if TYPE_CHECKING:
    from ._backend import Backend

_ROOMS = {
    "redis": ("_redis", "RedisPair"),
    "sqlite": ("_sqlite", "SqliteFile"),
    "postgres": ("_postgres", "PostgresPair"),
    "kafka": ("_kafka", "KafkaCluster"),
    "s3sns": ("_s3sns", "S3Account"),
    "sqs": ("_sqs", "SqsAccount"),
    "workflow_streams": ("_workflow_streams", "HostedStreams"),
}
BACKENDS = tuple(_ROOMS)
"""Names of the backends that can be broken; the first one is the default."""


def backend_type(name: str) -> type[Backend]:
    """Import what breaks a backend: only its own clients have to be installed."""
    module, kind = _ROOMS[name]
    found: type[Backend] = getattr(import_module(f".{module}", __package__), kind)
    return found


def faults_of(name: str) -> tuple[Source, ...]:
    """Return what is broken in a run of a backend."""
    kind = backend_type(name)
    return sources_of(kind.sources, kind.links, has_fan_out=kind.has_fan_out)
