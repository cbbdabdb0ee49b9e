"""How a stream's queue is called and what is written on it: names and tags."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streamq.driver import StreamId

_FIFO = ".fifo"
_TENANT_DIGITS, _NAME_DIGITS = 12, 32
_TENANT, _NAME, _ALIVE, _TTL = "streamq:tenant", "streamq:name", "streamq:alive", "streamq:ttl"
_EPOCH = "streamq:epoch:"
_FORGOTTEN = "streamq:forgotten"
_LONGEST_TAG = 256
_MOST_EPOCHS = 20  # a queue takes 50 tags


class QueueNames:
    """Translates between streams and names of queues.

    Args:
        prefix: How every name begins.
        fifo: Whether they are FIFO queues, whose names end so.
    """

    def __init__(self, prefix: str, *, fifo: bool) -> None:
        self.prefix = prefix
        self._suffix = _FIFO if fifo else ""

    def tenant(self, tenant: str) -> str:
        """Return how the names of all queues of a tenant begin."""
        return f"{self.prefix}{_digest(tenant, _TENANT_DIGITS)}-"

    def queue(self, stream: StreamId) -> str:
        """Return the name of a stream's queue: a digest, since names of queues are short."""
        return f"{self.tenant(stream.tenant)}{_digest(stream.name, _NAME_DIGITS)}{self._suffix}"


def _digest(text: str, digits: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=digits // 2).hexdigest()


@dataclass(frozen=True, slots=True)
class Label:
    """What the tags of a queue say.

    Attributes:
        stream: Whose queue it is; ``None`` if it is none of ours.
        epochs: Epochs that were opened, the newest ones, with digests of what opened each: one, but
            for two writers who have announced the same.
        forgotten: How many older ones are no longer listed.
        alive_ms: When it was last said to be in use, by the clock of its writer.
        ttl_seconds: For how long the stream is kept after that, or after its end.
    """

    stream: StreamId | None
    epochs: Mapping[int, frozenset[str]]
    forgotten: int = 0
    alive_ms: int = 0
    ttl_seconds: float = 0.0

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Label:
        """Read the tags of a queue, whoever has put them there."""
        tenant, name = _joined(tags, _TENANT), _joined(tags, _NAME)
        try:
            return cls(
                StreamId(tenant, name),
                _openings(tags),
                int(tags.get(_FORGOTTEN, 0)),
                int(tags.get(_ALIVE, 0)),
                float(tags.get(_TTL, 0)),
            )
        except ValueError:
            return cls(None, {})

    @property
    def newest_epoch(self) -> int:
        """The largest epoch that was opened; 0 if there is none."""
        return max(self.epochs, default=0)

    @property
    def attempts(self) -> int:
        """How many were opened."""
        return self.forgotten + len(self.epochs)

    @property
    def age_seconds(self) -> float:
        """For how long nobody has said that it is in use."""
        return (now_ms() - self.alive_ms) / 1000

    @property
    def expires_in(self) -> timedelta:
        """Until when a sweep leaves it alone whatever is in it; 0 if that time has passed."""
        return timedelta(seconds=max(self.ttl_seconds - self.age_seconds, 0.0))

    def openings(self, epoch: int) -> frozenset[str]:
        """Return the digests of what opened an epoch: none if it was not opened."""
        return self.epochs.get(epoch, frozenset())

    def too_old(self) -> list[int]:
        """Return the epochs that have to make room for the next one."""
        return sorted(self.epochs, reverse=True)[_MOST_EPOCHS:]

    def keys(self, epochs: Iterable[int]) -> list[str]:
        """Return the keys of the tags that say that epochs were opened."""
        return [_epoch_key(epoch, digest) for epoch in epochs for digest in self.epochs[epoch]]


def identity_tags(stream: StreamId) -> dict[str, str]:
    """Return the tags that say whose queue it is: names may have characters that tags have not."""
    return {**_cut(_TENANT, stream.tenant), **_cut(_NAME, stream.name)}


def digest_of(opening: bytes) -> str:
    """Return what tells two openings of one epoch apart."""
    return hashlib.blake2b(opening, digest_size=16).hexdigest()


def opening_tags(epoch: int, digest: str, ttl_seconds: float) -> dict[str, str]:
    """Return the tags that announce an epoch.

    The digest is a part of the key: of two who announce one epoch neither overwrites the other.
    """
    return {_epoch_key(epoch, digest): str(now_ms()), **life_tags(ttl_seconds)}


def life_tags(ttl_seconds: float) -> dict[str, str]:
    """Return the tags that say until when the stream is kept."""
    return {_ALIVE: str(now_ms()), _TTL: f"{ttl_seconds:g}"}


def now_ms() -> int:
    """Return the time, as the tags have it."""
    return time.time_ns() // 1_000_000


def forgotten_tags(label: Label, epochs: Sequence[int]) -> dict[str, str]:
    """Return the tags that count epochs whose own are taken away."""
    return {_FORGOTTEN: str(label.forgotten + len(epochs))}


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
