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
    allows a median of 20 ms, 50 ms, 0.5 s and 10 s, so that busy machines pass as well; in virtual
    time it allows a tenth.
    """

    MICROSECONDS = "microseconds"
    MILLISECONDS = "milliseconds"
    TENS_OF_MILLISECONDS = "tens of milliseconds"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Promises of a driver; a declared capability is mandatory for it.

    Fields that are ``bool`` can be required at open by name, as ``require={"replay"}``. streamq
    refuses what is required and not declared: ``CapabilityError``, which names the backends that
    declare it. It refuses writers where attempts cannot be told apart (:attr:`writable`). Nothing
    is emulated in silence.
    """

    replay: bool = field(metadata={"help": "a reader can read again from any retained place"})
    """Reading removes nothing, and every position stays valid, later, in other processes, and after
    its record was removed.

    Without it reading takes records away until they are committed: a stream has one reader, which
    cannot begin at the tail, and attempts cannot resume or replay.
    """

    fan_out: bool = field(metadata={"help": "many readers each see everything"})
    """Any number of readers get every record of a stream; none takes records from another."""

    ordered: bool = field(metadata={"help": "records are read in the order they were appended"})
    """Every reader gets the records of a stream in one order, that in which they were stored.

    For the appends of one writer, it is the order of the calls. No reader gets a record before
    another one that it will get later, so a position never hides an earlier record.
    """

    fenced: bool = field(metadata={"help": "the backend itself rejects a stale attempt"})
    """After an entry of an epoch is stored, no entry of an older epoch is, whichever process, on
    whichever connection, appends it, however late; and a repeated entry is skipped.

    Without it, readers drop stale records, and writers ask for the newest epoch.
    """

    durable: bool = field(metadata={"help": "acknowledged records survive a restart of the server"})
    """An entry whose append has returned is still there after the server was killed without warning
    right afterwards, and was started again on its data; so are its stream, its order and its fence.

    It survives the end of all clients as well. It is no promise about a lost disk, nor, unless the
    driver's page says so, about a loss of power.
    """

    cross_process: bool = field(metadata={"help": "producer and reader may be different processes"})
    """A stream is the same in every process of a host that has the same settings: entries, fence,
    deletion and wake-ups reach the others.
    """

    cross_host: bool = field(metadata={"help": "producer and reader may be different machines"})
    """The same holds for other hosts, over a network that breaks connections and loses answers.

    It includes ``cross_process``.
    """

    expires: bool = field(metadata={"help": "streams disappear by themselves after their TTL"})
    """A stream to which nothing is appended for its time to live is gone then: it cannot be read,
    listed or described, though no process of streamq runs. It is not gone earlier.

    Its bytes may stay until :meth:`ChunkQueue.sweep`. ``StreamInfo.expires_in`` has the time left.
    """

    erases: bool = field(
        default=True, metadata={"help": "nothing of a deleted stream is left in the backend"}
    )
    """When a delete has returned, the backend holds none of the bytes that were appended: no
    tombstone, older version or segment has them. Backups and copies outside it are not meant.
    """

    max_record_bytes: int = field(
        metadata={"help": "largest record that can be stored, at least 4096"}
    )
    """An entry whose data has this many bytes is stored. It is at least 4,096.

    It is at most 64 MiB, the most that the conformance kit can prove. streamq splits larger chunks
    by it.
    """

    latency: LatencyClass = field(metadata={"help": "typical time from append to a blocked reader"})
    """The median from append to a blocked reader is within what the class allows."""

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
