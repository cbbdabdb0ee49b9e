"""Options of one writer: limits from the settings and choices of the caller.

Design: docs/design/writing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from streamq._settings import Settings
from streamq.quotas._writers import WriterQuota
from streamq.records._codec import Codec
from streamq.records._values import PLAIN, Serializer

from ._policies import OnFull


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """Options that a :class:`~streamq.StreamWriter` is created with.

    Attributes:
        max_chunk_bytes: Largest encoded chunk that ``send_chunk`` accepts.
        buffer_bytes: Most bytes accepted and not yet acknowledged or, with ``holds_back``, held
            back.
        holds_back: Keep every chunk until the stream is sealed END (batch mode).
        ttl: How long the backend keeps the stream after an append; ``None`` for its usual time to
            live.
        sealed_ttl: How long the backend keeps the stream once it is sealed; ``None`` for its usual
            time to live.
        on_full: What ``send_chunk`` does while the buffer has no room.
        serializer: Encodes values.
        codec: Encrypts or compresses each record, if set.
        seals_failures: Whether leaving ``async with`` by an exception seals the stream and closes
            the writer.
        discards: Whether chunks are stored nowhere, because the stream was sealed before this
            attempt began.
        quota: What the writer takes of its tenant's quota; released at its end. ``None`` for a
            writer that stores nothing.
        seal_timeout: How many seconds ``aclose`` waits for accepted chunks and a requested seal to
            be stored.
    """

    max_chunk_bytes: int
    buffer_bytes: int
    holds_back: bool = False
    ttl: timedelta | None = None
    sealed_ttl: timedelta | None = None
    on_full: OnFull = OnFull.BLOCK
    serializer: Serializer[Any] = PLAIN
    codec: Codec | None = None
    seals_failures: bool = True
    discards: bool = False
    quota: WriterQuota | None = None
    seal_timeout: float = 10.0

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        on_full: OnFull = OnFull.BLOCK,
        serializer: Serializer[Any] = PLAIN,
        codec: Codec | None = None,
        seals_failures: bool = True,
        discards: bool = False,
        quota: WriterQuota | None = None,
    ) -> Self:
        """Return the options for a writer with the limits that are configured.

        A writer that discards its chunks holds none of them back.
        """
        kept = None if quota is None else quota.kept
        ttl = kept if kept is not None and kept < settings.ttl else None
        holds_back = settings.mode == "batch" and not discards
        return cls(
            max_chunk_bytes=settings.max_chunk_bytes,
            buffer_bytes=settings.batch_bytes if holds_back else settings.buffer_bytes,
            holds_back=holds_back,
            ttl=ttl,
            sealed_ttl=settings.sealed_ttl if ttl is None else min(settings.sealed_ttl, ttl),
            on_full=on_full,
            serializer=serializer,
            codec=codec,
            seals_failures=seals_failures,
            discards=discards,
            quota=quota,
        )
