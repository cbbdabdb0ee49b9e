"""Makes the streams and their chunks, a pure function of the seed and the stream's number."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

POLICIES = ("restart", "resume", "replay")
LARGEST_CHUNK_BYTES = 300_000
"""Bound of the largest chunks, more or less."""

_FILLER = "lorem ipsum \u2028 dolor\nsit \u00e4m\u00e9t \U0001f30a "


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The plan of one stream's producer.

    Attributes:
        name: Id of the workflow.
        policy: Policy for the next attempt, which is also the activity's name.
        chunks: Number of chunks to send.
        largest_bytes: Bound of their sizes; most are much smaller.
        pause_seconds: Pause between two chunks; 0 sends as fast as possible.
        flush_every: Number of chunks between two waits for the acknowledgement.
    """

    name: str
    policy: str
    chunks: int
    largest_bytes: int
    pause_seconds: float
    flush_every: int


_SHAPES = (
    # weight, chunks, largest chunk, pause
    (4, (30, 120), 200, (0.02, 0.06)),  # tokens of a model
    (3, (100, 300), 2_000, (0.002, 0.01)),
    (2, (200, 600), 1_000, (0.0, 0.0)),  # as fast as possible
    (2, (5, 25), LARGEST_CHUNK_BYTES, (0.05, 0.2)),
    (1, (1, 5), 100, (0.3, 1.0)),  # mostly silent
    (1, (0, 1), 50, (0.0, 0.0)),  # at most one chunk
)


def make_plan(
    seed: int,
    number: int,
    largest_bytes: int = LARGEST_CHUNK_BYTES,
    policies: Sequence[str] = POLICIES,
) -> StreamPlan:
    """Return the plan of a stream; the same arguments give the same plan.

    Args:
        seed: Seed of the run.
        number: Number of the stream.
        largest_bytes: Size of the largest chunks that the backend stores.
        policies: What the next attempt may do on this backend.
    """
    chance = random.Random(f"streamq chaos, seed {seed}, stream {number}")
    (shape,) = chance.choices(_SHAPES, [shape[0] for shape in _SHAPES])
    _, counts, largest, pauses = shape
    return StreamPlan(
        name=f"chaos-{seed}-{number}",
        policy=policies[number % len(policies)],
        chunks=chance.randint(*counts),
        largest_bytes=min(largest, largest_bytes),
        pause_seconds=round(chance.uniform(*pauses), 4),
        flush_every=chance.choice((1, 5, 20, 100)),
    )


def make_value(plan: StreamPlan, seq: int, author: str) -> object:
    """Return a chunk: text, bytes or JSON that differs from every other chunk of the run.

    Args:
        plan: Plan of the stream.
        seq: Place in the stream.
        author: The sender: an attempt that starts over sends other values than the previous one.
    """
    chance = random.Random(f"{plan.name} {seq} {author}")
    size = int(plan.largest_bytes * chance.random() ** 4)
    text = f"{plan.name} {author} {seq} " + _FILLER * (size // len(_FILLER.encode()))
    kind = chance.randrange(6)
    if kind == 0:
        return text.encode() + bytes(range(256))
    if kind == 1:
        return {"text": text, "seq": seq, "ratio": seq / 7, "nothing": None, "list": [1, "2"]}
    return text


def digest(value: object) -> str:
    """Return a short digest that represents a value in ledgers and logs."""
    if isinstance(value, bytes):
        data = b"bytes " + value
    else:
        data = b"json " + json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(data, digest_size=10).hexdigest()
