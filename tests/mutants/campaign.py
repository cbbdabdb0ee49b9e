"""Tries mutants one after the other, in several processes at once, until the time is up.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from .drawing import draw
from .drivers import DriverUnderTest
from .forking import Forker
from .mutants import Mutant
from .outcomes import BROKEN, CAUGHT, EQUIVALENT
from .report import Counts
from .running import Sound, Verdict, observe, try_mutant

_SLACK = 1.2
_SAVE_SECONDS = 20.0


@dataclass(slots=True)
class Campaign:
    """A run over the mutants of some drivers.

    Attributes:
        drivers: Which drivers.
        mutants: The mutants of each, by its name.
        seed: Determines their order.
        equivalent: Reasons of those that are not tried, by their key.
        count: How many to try; ``None`` for as many as there are.
        seconds: Seconds in which everything has to end; ``None`` if there is no hurry.
        jobs: How many processes run at once.
        save: Called now and then with what is known so far, and at the end.
        sound: What each driver does as it is, once this is known.
    """

    drivers: Sequence[DriverUnderTest]
    mutants: Mapping[str, Sequence[Mutant]]
    seed: int
    equivalent: Mapping[tuple[str | int, ...], str]
    count: int | None = None
    seconds: float | None = None
    jobs: int = 2
    save: Callable[[Campaign], None] = lambda campaign: None
    sound: dict[str, Sound] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _verdicts: list[tuple[int, Verdict]] = field(default_factory=list)
    _drawn: int = 0
    _saved: float = 0.0
    _is_stopped: bool = False

    def order(self) -> Iterator[Mutant]:
        """Yield the mutants in the order of the seed."""
        return draw(self.mutants, self.seed)

    def run(self, console: Console) -> list[Verdict]:
        """Run all of it; return the verdicts in the order of the seed.

        Raises:
            UnsoundDriverError: A suite fails on its driver as it is.
        """
        used = [driver for driver in self.drivers if self.mutants.get(driver.name)]
        forkers = [Forker() for _ in range(self.jobs)]
        with self._shown(console) as show, ThreadPoolExecutor(self.jobs) as pool:
            try:
                waiting = iter(used)
                observers = [pool.submit(self._observe, each, waiting, show) for each in forkers]
                for observer in observers:
                    observer.result()
                queue = enumerate(self.order())
                workers = [pool.submit(self._work, each, queue, show) for each in forkers]
                for worker in workers:
                    worker.result()
            except BaseException:
                self._is_stopped = True
                raise
            finally:
                for forker in forkers:
                    forker.close()
                self.save(self)
        return self.verdicts

    @property
    def verdicts(self) -> list[Verdict]:
        """What became of the mutants so far, in the order of the seed."""
        return [verdict for _, verdict in sorted(self._verdicts, key=lambda each: each[0])]

    def _observe(
        self, forker: Forker, waiting: Iterator[DriverUnderTest], show: Callable[[str], None]
    ) -> None:
        while True:
            with self._lock:
                driver = None if self._is_stopped else next(waiting, None)
            if driver is None:
                return
            sound = observe(forker, driver)
            with self._lock:
                self.sound[driver.name] = sound
                show(_about(driver, sound))

    def _work(
        self,
        forker: Forker,
        queue: Iterator[tuple[int, Mutant]],
        show: Callable[[str], None],
    ) -> None:
        drivers = {driver.name: driver for driver in self.drivers}
        while (drawn := self._next(queue)) is not None:
            number, mutant = drawn
            if mutant.key in self.equivalent:
                verdict = Verdict(mutant, EQUIVALENT, reason=self.equivalent[mutant.key])
            else:
                verdict = try_mutant(
                    forker, drivers[mutant.driver], mutant, self.sound[mutant.driver]
                )
            if self._is_stopped:
                return
            with self._lock:
                self._verdicts.append((number, verdict))
                self._drawn -= verdict.outcome == BROKEN  # this process draws another one
                show(self._progress(verdict))
                if time.monotonic() - self._saved > _SAVE_SECONDS:
                    self._saved = time.monotonic()
                    self.save(self)

    def _next(self, queue: Iterator[tuple[int, Mutant]]) -> tuple[int, Mutant] | None:
        """Draw the next one, unless there are enough or the slowest one could not end in time."""
        with self._lock:
            is_enough = self.count is not None and self._drawn >= self.count
            if self._is_stopped or is_enough or self._is_late():
                return None
            self._drawn += 1
            return next(queue, None)

    def _is_late(self) -> bool:
        if self.seconds is None:
            return False
        slowest = max((each.total_seconds for each in self.sound.values()), default=0.0)
        return time.monotonic() - self._began + _SLACK * slowest > self.seconds

    def _progress(self, verdict: Verdict) -> str:
        counts = Counts.count(verdict for _, verdict in self._verdicts)
        mutant = verdict.mutant
        by = f" by {verdict.check.rpartition('::')[2]}" if verdict.outcome == CAUGHT else ""
        return (
            f"{counts.tried:4} {100 * counts.share_caught:5.1f} % "
            f"{time.monotonic() - self._began:5.0f} s  {verdict.outcome} {mutant.id} "
            f"{mutant.driver} {mutant.function} {mutant.operator}{by} ({verdict.seconds:.0f} s)"
        )

    @contextlib.contextmanager
    def _shown(self, console: Console) -> Iterator[Callable[[str], None]]:
        """Yield what shows a line of progress: one that changes, or lines, if it is no terminal."""
        if not console.is_terminal:
            yield lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        with Live(console=console, transient=True) as live:
            yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"))


def _about(driver: DriverUnderTest, sound: Sound) -> str:
    unsteady = f", {len(sound.unsteady)} of them unsteady" if sound.unsteady else ""
    return (
        f"{driver.name}: {len(sound.seconds)} checks pass in {sound.total_seconds:.0f} s"
        f"{unsteady}, {len(sound.skipped)} are skipped"
    )
