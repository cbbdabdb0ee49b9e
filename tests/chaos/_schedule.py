"""Makes the schedule of faults, a pure function of the seed and the length of the run."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

WORKERS = ("worker-1", "worker-2", "worker-3", "worker-4")
READERS = ("direct-1", "direct-2", "subscribe-1", "sse-1")
GATEWAY = "gateway"
SERVER = "server"
"""The server of the backend, or the one of several that takes writes."""

PASSWORD = "password"
"""The password of the user that everything connects to the backend as, and the file that has it."""

WORKER_LINK = "link-workers"
READER_LINK = "link-readers"
HTTP_LINK = "link-http"
BACKEND_LINKS = (WORKER_LINK, READER_LINK)
LINKS = (*BACKEND_LINKS, HTTP_LINK)
TEMPORAL_LINKS = {worker: f"link-temporal-{worker}" for worker in WORKERS}
"""The link from each worker to Temporal. A worker that is cut off there continues to write while
its work is given to another one."""

HEARTBEAT_SECONDS = 1.5
"""The activities' heartbeat timeout: an activity that is silent for longer is replaced."""

FAULTS_PER_SECOND = 2.25

_RECOVERY_SECONDS = 0.25
"""Shortest time between two faults of one target, so that the target has recovered."""


class FaultKind(enum.Enum):
    """The kinds of faults."""

    KILL = "kill"  # SIGKILL, and a restart after a while
    PAUSE = "pause"  # SIGSTOP, SIGCONT after a while
    CUT = "cut"  # every connection is reset
    CUT_AFTER = "cut-after"  # one is reset after so many bytes
    HOLD = "hold"  # no bytes pass in either direction
    HOLD_TO_SERVER = "hold-to-server"
    HOLD_TO_CLIENT = "hold-to-client"
    HALF_CLOSE_TO_SERVER = "half-close-to-server"
    HALF_CLOSE_TO_CLIENT = "half-close-to-client"
    REFUSE = "refuse"  # new connections
    DELAY = "delay"
    FAIL_OVER = "fail-over"  # primary and replica change roles; the name leads to the new primary
    ROTATE = "rotate"  # a new password; the old one is refused after a while
    REMOVE = "remove"  # the password's file is missing for a while
    TERMINATE = "terminate"  # the server ends the connections
    LOCK = "lock"  # another program holds the write lock of the database
    DIE = "die"  # another program is killed in the middle of a transaction
    FULL = "full"  # the disk has no room
    SNAPSHOT = "snapshot"  # another program reads an old state, which has to be kept
    CHECKPOINT = "checkpoint"  # another program empties the log
    LOSE = "lose"  # notifications to readers are lost


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: Seconds after the start of the run.
        kind: The kind of fault.
        target: The process, server or link that it affects.
        seconds: Its duration; for KILL, the time until the restart. 0 for an instant fault.
        amount: Bytes for CUT_AFTER, milliseconds for DELAY, else 0.
    """

    at: float
    kind: FaultKind
    target: str
    seconds: float = 0.0
    amount: int = 0

    def __str__(self) -> str:
        text = f"{self.at:8.3f} {self.kind.value} {self.target}"
        if self.seconds:
            text += f" for {self.seconds:.3f} s"
        if self.amount:
            text += f", {self.amount} {'ms' if self.kind is FaultKind.DELAY else 'bytes'}"
        return text


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of fault that is drawn at random.

    Attributes:
        weight: Its frequency, relative to the others.
        shortest, longest: Bounds of its length in seconds.
        least, most: Bounds of its amount.
    """

    weight: int
    kind: FaultKind
    targets: Sequence[str]
    shortest: float = 0.0
    longest: float = 0.0
    least: int = 0
    most: int = 0


_TEMPORAL = tuple(TEMPORAL_LINKS.values())
_COMMON = (
    Source(14, FaultKind.KILL, WORKERS, 0.1, 1.5),
    Source(12, FaultKind.KILL, READERS, 0.1, 1.5),
    Source(4, FaultKind.KILL, (GATEWAY,), 0.1, 1.0),
    # Long enough for a successor to take over after the first pause between attempts, 1 s.
    Source(5, FaultKind.PAUSE, WORKERS, HEARTBEAT_SECONDS + 1.5, HEARTBEAT_SECONDS + 3.0),
    Source(5, FaultKind.PAUSE, READERS, 0.2, 3.0),
    Source(2, FaultKind.PAUSE, (GATEWAY,), 0.2, 3.0),
    Source(5, FaultKind.HOLD, _TEMPORAL, HEARTBEAT_SECONDS + 1.5, HEARTBEAT_SECONDS + 3.0),
    Source(2, FaultKind.CUT, _TEMPORAL),
    Source(12, FaultKind.CUT, LINKS),
    Source(10, FaultKind.CUT_AFTER, LINKS, least=1, most=50_000),
    Source(3, FaultKind.HOLD, LINKS, 0.2, 3.5),
    Source(2, FaultKind.HOLD_TO_SERVER, LINKS, 0.2, 3.5),
    Source(3, FaultKind.HOLD_TO_CLIENT, LINKS, 0.2, 3.5),
    Source(2, FaultKind.HALF_CLOSE_TO_SERVER, LINKS),
    Source(2, FaultKind.HALF_CLOSE_TO_CLIENT, LINKS),
    Source(4, FaultKind.REFUSE, LINKS, 0.2, 2.0),
    Source(8, FaultKind.DELAY, LINKS, 0.5, 3.0, least=2, most=120),
)


def sources_of(
    own: Sequence[Source], links: Sequence[str], *, has_fan_out: bool = True
) -> tuple[Source, ...]:
    """Return what is broken in a run: what every backend has, and what only one has.

    Args:
        own: Faults of the backend.
        links: The links to its servers, if it is reached by connections.
        has_fan_out: Whether there are readers outside the workflows, and a gateway.
    """
    reached = (*links, HTTP_LINK) if has_fan_out else tuple(links)
    common = (
        replace(each, targets=reached) if each.targets == LINKS else each
        for each in _COMMON
        if has_fan_out or each.targets not in (READERS, (GATEWAY,))
    )
    return (*common, *own)


def make_schedule(seed: int, seconds: float, sources: Sequence[Source]) -> list[Fault]:
    """Return the faults of a run in the order of their times; all of them end with the run.

    The same arguments give the same faults in every process. Two faults of one target never
    overlap; faults of different targets do.
    """
    chance = random.Random(f"streamq chaos, seed {seed}, {seconds:g} s")
    count = int(seconds * FAULTS_PER_SECOND)
    free_at: dict[str, float] = {}
    faults: list[Fault] = []
    for place in range(count):
        at = round((place + chance.random()) / FAULTS_PER_SECOND, 3)
        able = [
            source
            for source in sources
            if at + source.shortest < seconds
            and any(free_at.get(target, 0.0) <= at for target in source.targets)
        ]
        if not able:
            continue
        (source,) = chance.choices(able, [source.weight for source in able])
        target = chance.choice([one for one in source.targets if free_at.get(one, 0.0) <= at])
        lasts = min(chance.uniform(source.shortest, source.longest), seconds - at)
        # Mostly small amounts, which cut the first message in two.
        amount = int(source.least + (source.most - source.least) * chance.random() ** 3)
        faults.append(Fault(at, source.kind, target, round(lasts, 3), amount))
        free_at[target] = at + lasts + _RECOVERY_SECONDS
    return faults
