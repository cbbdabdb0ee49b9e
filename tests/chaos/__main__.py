"""Inject faults of every kind for a while, then check that nothing was lost.

Run it with ``python -m tests.chaos``. Design: docs/design/testing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ._backends import BACKENDS, faults_of
from ._run import Progress, Result, Run
from ._schedule import make_schedule
from ._sqlite import enter_own_mounts

_SHOWN_FINDINGS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and judge; return 0 if every chunk was delivered once and in order."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the faults")
    parser.add_argument("--seed", type=int, default=7, help="determines the faults and streams")
    parser.add_argument("--schedule", action="store_true", help="only print the schedule")
    parser.add_argument("--keep", action="store_true", help="always keep ledgers and logs")
    parser.add_argument(
        "--backend", choices=BACKENDS, default=BACKENDS[0], help="the backend to break"
    )
    options = parser.parse_args(arguments)
    if options.schedule:
        for fault in make_schedule(options.seed, options.seconds, faults_of(options.backend)):
            print(fault)
        return 0
    if options.seconds <= 0:
        parser.error(f"--seconds is {options.seconds:g}; it has to be positive")
    backend = options.backend
    if backend == "sqlite":
        enter_own_mounts()
    directory = Path(tempfile.mkdtemp(prefix=f"streamq-chaos-{backend}-seed{options.seed}-"))
    is_wanted = True
    try:
        result = _run(backend, options.seed, options.seconds, directory)
        is_wanted = options.keep or bool(result.verdict.findings)
        _report(options.seed, options.seconds, directory if is_wanted else None, result)
        return 1 if result.verdict.findings else 0
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything is stopped", file=sys.stderr)
        is_wanted = options.keep
        return 130
    finally:
        if not is_wanted:
            shutil.rmtree(directory, ignore_errors=True)


def _run(backend: str, seed: int, seconds: float, directory: Path) -> Result:
    with _shown(seconds) as show:
        return asyncio.run(_interruptible(Run(backend, seed, seconds, directory, show)))


async def _interruptible(run: Run) -> Result:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run.run()


@contextmanager
def _shown(seconds: float) -> Iterator[Callable[[Progress], None]]:
    """Show progress on a terminal."""
    console = Console()
    if not console.is_terminal:
        yield lambda progress: None
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(progress: Progress) -> None:
            p = progress
            text = (
                f"{p.phase} {p.seconds:.0f} of {seconds:g} s  faults {p.faults}  streams "
                f"{p.streams}, completed {p.completed}  events read {p.events}, endings {p.ended}"
            )
            live.update(Text(text), refresh=True)

        yield show


def _report(seed: int, seconds: float, directory: Path | None, result: Result) -> None:
    findings = result.verdict.findings
    for finding in findings[:_SHOWN_FINDINGS]:
        print(finding)
    if len(findings) > _SHOWN_FINDINGS:
        print(f"... and {len(findings) - _SHOWN_FINDINGS} more")
    if result.crashes:
        print(f"processes of the run ended by themselves {result.crashes} times; see their logs")
    if directory is not None:
        print(f"seed {seed}, {seconds:g} s, {result.streams} streams; files are in {directory}")
    print(result.verdict.line(result.faults), flush=True)


if __name__ == "__main__":
    sys.exit(main())
