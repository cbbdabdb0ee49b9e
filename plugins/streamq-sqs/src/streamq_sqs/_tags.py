"""Reads and builds the tags of a stream's queue: its stream, its epochs and its time to live.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streamq.driver import StreamId

_TENANT, _NAME, _ALIVE, _TTL = "streamq:tenant", "streamq:name", "streamq:alive", "streamq:ttl"
_EPOCH = "streamq:epoch:"
_FORGOTTEN = "streamq:forgotten"
_LONGEST_TAG = 256
_MOST_EPOCHS = 20  # a queue takes 50 tags


@dataclass(frozen=True, slots=True)
class QueueTags:
    """The facts in the tags of a queue.

    Attributes:
        stream: The stream that the queue holds; ``None`` if the queue is not one of streamq's.
        epochs: The newest epochs that were opened, each with the digests of its opening records.
            More than one digest means that two writers have announced the same epoch.
        forgotten: How many older epochs are no longer listed.
        alive_ms: When a writer last marked the stream as in use, by the clock of that writer.
        ttl_seconds: How long the stream is kept after that.
    """

    stream: StreamId | None
    epochs: Mapping[int, frozenset[str]]
    forgotten: int = 0
    alive_ms: int = 0
    ttl_seconds: float = 0.0

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> QueueTags:
        """Parse the tags of any queue, also of one that others have tagged."""
        tenant, name = _joined(tags, _TENANT), _joined(tags, _NAME)
        try:
            found = cls(
                StreamId(tenant, name),
                _openings(tags),
                int(tags.get(_FORGOTTEN, 0)),
                int(tags.get(_ALIVE, 0)),
                float(tags.get(_TTL, 0)),
            )
            timedelta(seconds=found.ttl_seconds)  # raises if no time is so long
            return found
        except (ValueError, OverflowError):
            return cls(None, {})

    @property
    def newest_epoch(self) -> int:
        """The largest epoch that was opened; 0 if there is none."""
        return max(self.epochs, default=0)

    @property
    def attempts(self) -> int:
        """How many epochs were opened."""
        return self.forgotten + len(self.epochs)

    @property
    def age_seconds(self) -> float:
        """Time since a writer last marked the stream as in use."""
        return (_now_ms() - self.alive_ms) / 1000

    @property
    def expires_in(self) -> timedelta:
        """Time during which no sweep deletes the queue, whatever it holds; 0 if that has passed."""
        return timedelta(seconds=max(self.ttl_seconds - self.age_seconds, 0.0))

    def openings(self, epoch: int) -> frozenset[str]:
        """Return the digests of an epoch's opening records: none if it was not opened."""
        return self.epochs.get(epoch, frozenset())

    def surplus_epochs(self) -> list[int]:
        """Return the epochs whose tags have to be removed to make room for the next epoch."""
        return sorted(self.epochs, reverse=True)[_MOST_EPOCHS:]

    def keys(self, epochs: Iterable[int]) -> list[str]:
        """Return the keys of the tags that announce these epochs."""
        return [_epoch_key(epoch, digest) for epoch in epochs for digest in self.epochs[epoch]]


def identity_tags(stream: StreamId) -> dict[str, str]:
    """Return the tags that name the stream, encoded: tags allow fewer characters than names."""
    return {**_cut(_TENANT, stream.tenant), **_cut(_NAME, stream.name)}


def opening_digest(opening: bytes) -> str:
    """Return a digest that distinguishes two opening records of one epoch."""
    return hashlib.blake2b(opening, digest_size=16).hexdigest()


def opening_tags(epoch: int, digest: str, ttl_seconds: float) -> dict[str, str]:
    """Return the tags that announce an epoch.

    The digest is a part of the key, so that two writers of one epoch do not overwrite each other.
    """
    return {_epoch_key(epoch, digest): str(_now_ms()), **life_tags(ttl_seconds)}


def life_tags(ttl_seconds: float) -> dict[str, str]:
    """Return the tags that mark the stream as in use now, and state its time to live."""
    return {_ALIVE: str(_now_ms()), _TTL: f"{ttl_seconds:g}"}


def forgotten_tags(tags: QueueTags, epochs: Sequence[int]) -> dict[str, str]:
    """Return the tags that count epochs whose own tags are to be removed."""
    return {_FORGOTTEN: str(tags.forgotten + len(epochs))}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _epoch_key(epoch: int, digest: str) -> str:
    return f"{_EPOCH}{epoch}:{digest}"


def _openings(tags: Iterable[str]) -> dict[int, frozenset[str]]:
    found: dict[int, frozenset[str]] = {}
    for key in tags:
        if key.startswith(_EPOCH):
            epoch, _, digest = key.removeprefix(_EPOCH).partition(":")
            found[int(epoch)] = found.get(int(epoch), frozenset()) | {digest}
    return found


def _cut(key: str, text: str) -> dict[str, str]:
    encoded = base64.urlsafe_b64encode(text.encode()).decode()
    parts = range(0, len(encoded), _LONGEST_TAG)
    return {f"{key}:{i}": encoded[at : at + _LONGEST_TAG] for i, at in enumerate(parts)}


def _joined(tags: Mapping[str, str], key: str) -> str:
    parts: list[str] = []
    while (part := tags.get(f"{key}:{len(parts)}")) is not None:
        parts.append(part)
    try:
        return base64.urlsafe_b64decode("".join(parts)).decode()
    except ValueError:
        return ""
