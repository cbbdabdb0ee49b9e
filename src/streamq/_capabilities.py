"""Capabilities of a backend as data: declared by drivers, required by callers, shown in tables.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field


class LatencyClass(enum.Enum):
    """Typical time from append to a blocked reader, on a healthy deployment nearby.

    A driver that polls declares the class that its polling interval leads to. The conformance kit
    allows a median of 20 ms, 50 ms, 0.5 s and 10 s, so that busy machines pass as well.
    """

    MICROSECONDS = "microseconds"
    MILLISECONDS = "milliseconds"
    TENS_OF_MILLISECONDS = "tens of milliseconds"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Promises of a driver; a declared capability is mandatory for it.

    Fields that are ``bool`` can be required at open by name, e.g. ``require={"replay"}``.
    """

    replay: bool = field(metadata={"help": "a reader can read again from any retained place"})
    fan_out: bool = field(metadata={"help": "many readers each see everything"})
    ordered: bool = field(metadata={"help": "records are read in the order they were appended"})
    fenced: bool = field(metadata={"help": "the backend itself rejects a stale attempt"})
    durable: bool = field(metadata={"help": "acknowledged records survive a restart of the server"})
    cross_process: bool = field(metadata={"help": "producer and reader may be different processes"})
    cross_host: bool = field(metadata={"help": "producer and reader may be different machines"})
    expires: bool = field(metadata={"help": "streams disappear by themselves after their TTL"})
    erases: bool = field(
        default=True, metadata={"help": "nothing of a deleted stream is left in the backend"}
    )
    max_record_bytes: int = field(
        metadata={"help": "largest record that can be stored, at least 4096"}
    )
    latency: LatencyClass = field(metadata={"help": "typical time from append to a blocked reader"})

    @property
    def writable(self) -> bool:
        """Whether streams can be opened for writing: something has to tell attempts apart.

        The backend itself does (``fenced``); or every reader does, since all read one log in one
        order (``ordered``); or the only reader does, since reading removes records (no ``replay``).
        """
        return self.fenced or self.ordered or not self.replay

    @classmethod
    def flags(cls) -> tuple[str, ...]:
        """Names of the capabilities that can be required."""
        return tuple(f.name for f in dataclasses.fields(cls) if f.type == "bool")

    def to_dict(self) -> dict[str, bool | int | str]:
        """Return the capabilities as JSON-ready data."""
        data: dict[str, bool | int | str] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            data[f.name] = value.value if isinstance(value, LatencyClass) else value
        return data
