"""Carries out a schedule: begins and ends each fault at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from streamq.testing import Direction, FaultProxy

from ._backend import Backend
from ._ledger import Ledger
from ._processes import Victim
from ._schedule import Fault, FaultKind

_HOLDS = {
    FaultKind.HOLD: None,
    FaultKind.HOLD_TO_SERVER: Direction.TO_SERVER,
    FaultKind.HOLD_TO_CLIENT: Direction.TO_CLIENT,
}
_HALF_CLOSES = {
    FaultKind.HALF_CLOSE_TO_SERVER: Direction.TO_SERVER,
    FaultKind.HALF_CLOSE_TO_CLIENT: Direction.TO_CLIENT,
}


class Saboteur:
    """Carries out faults.

    Args:
        victims: Processes by their name in the schedule.
        links: Proxies by their name in the schedule.
        backend: What is behind the links of workers and readers.
        ledger: Where each fault is noted once it has ended.

    Attributes:
        done: Number of faults that have happened, without those that had no effect.
    """

    def __init__(
        self,
        victims: Mapping[str, Victim],
        links: Mapping[str, FaultProxy],
        backend: Backend,
        ledger: Ledger,
    ) -> None:
        self.done = 0
        self._backend = backend
        self._ledger = ledger
        self._victims = victims
        self._links = links
        self._turns = {
            target: asyncio.Lock() for each in backend.sources for target in each.targets
        }

    async def run(self, schedule: Sequence[Fault]) -> None:
        """Carry out a schedule that begins now; return when all faults have ended."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as tasks:
            for fault in schedule:
                await asyncio.sleep(max(began + fault.at - clock(), 0.0))
                tasks.create_task(self._do(fault))
        for link in self._links.values():
            link.heal()

    async def _do(self, fault: Fault) -> None:
        if (turn := self._turns.get(fault.target)) is not None:
            # A slow machine must not make one fault of the backend overtake another.
            async with turn:
                had_effect = await self._carry_out(fault)
        else:
            had_effect = await self._carry_out(fault)
        self.done += had_effect
        self._ledger.write(fault=str(fault), had_effect=had_effect)

    async def _carry_out(self, fault: Fault) -> bool:
        if fault.kind is FaultKind.KILL:
            return await self._kill(self._victims[fault.target], fault.seconds)
        if fault.kind is FaultKind.PAUSE:
            return await self._pause(self._victims[fault.target], fault.seconds)
        if fault.target in self._links:
            return await self._break(self._links[fault.target], fault)
        had_effect = await self._backend.carry_out(fault)
        for name in self._backend.links:
            self._links[name].redirect("127.0.0.1", self._backend.port_of(name))
        return had_effect

    async def _kill(self, victim: Victim, seconds: float) -> bool:
        was_running = victim.is_wanted
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(victim.start)
        return was_running

    async def _pause(self, victim: Victim, seconds: float) -> bool:
        paused = victim.pause()
        if paused is None:
            return False
        try:
            await asyncio.sleep(seconds)
        finally:
            victim.resume(paused)
        return True

    async def _break(self, link: FaultProxy, fault: Fault) -> bool:
        kind = fault.kind
        if kind is FaultKind.CUT:
            return link.cut() > 0
        if kind in _HALF_CLOSES:
            return link.half_close(_HALF_CLOSES[kind]) > 0
        if kind is FaultKind.CUT_AFTER:
            link.cut_after(fault.amount)
        elif kind is FaultKind.DELAY:
            link.delay_seconds = fault.amount / 1000
            await asyncio.sleep(fault.seconds)
            link.delay_seconds = 0.0
        elif kind is FaultKind.REFUSE:
            link.refuse()
            link.cut()  # without it, clients would have no reason to connect
            await asyncio.sleep(fault.seconds)
            link.accept()
        else:
            link.hold(_HOLDS[kind])
            await asyncio.sleep(fault.seconds)
            link.release(_HOLDS[kind])
        return True
