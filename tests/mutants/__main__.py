"""Changes sound drivers in small ways, and counts the changes that the conformance kit notices.

Run it with ``python -m tests.mutants``. Design: docs/design/testing.md.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from .campaign import Campaign
from .drivers import DRIVERS, DriverUnderTest, find_driver
from .equivalent import ListError, check_list, entry_of, read_equivalent
from .mutants import Mutant, mutants_of
from .operators import OPERATORS
from .outcomes import CAUGHT
from .report import Counts, described, print_survivors, print_tables, write_report
from .running import UnsoundDriverError

_EXAMPLES = """\
examples:
  python -m tests.mutants --seconds 3000          as many as fit in 50 minutes
  python -m tests.mutants --seed 7 --count 100    the first 100 of seed 7
  python -m tests.mutants --driver memory --all   every mutant of the memory driver
  python -m tests.mutants --only 1f0c2a9b         one again, with what its check says
  python -m tests.mutants --driver log --list     only list what is possible
  python -m tests.mutants --left-out              which code is not changed, and why

A run ends with one line: mutants: seed=N tried=N caught=N survived=N equivalent=N. Caught are
those on which a check fails. What hangs, or is not executed by any check, has survived. The exit
status is 0 if at least --at-least per cent of those that are not equivalent were caught.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=(__doc__ or "").partition("\n")[0],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=int, help="determines which mutants come, and in which order; else random")
    add("--seconds", type=float, help="begin no mutant that could not end in this time")
    add("--count", type=int, help="try so many")
    add("--all", action="store_true", help="try every mutant")
    add("--driver", action="append", metavar="NAME", help="only this one; or MODULE:NAME of yours")
    add("--operator", action="append", choices=tuple(OPERATORS), metavar="NAME", help="only this")
    add("--only", action="append", metavar="ID", help="only this mutant, even if equivalent")
    add("--jobs", type=int, default=2, help="processes at once (default: %(default)s)")
    add("--report", type=Path, metavar="FILE", help="write all of it as JSON")
    add("--at-least", type=float, default=95.0, metavar="PERCENT", help="default: %(default)s")
    add("--list", action="store_true", help="list the mutants in the order of the seed")
    add("--left-out", action="store_true", help="list the code that is not changed, with reasons")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0 if enough were caught."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        drivers = [find_driver(name) for name in options.driver or [d.name for d in DRIVERS]]
        equivalent = read_equivalent()
        mutants = {driver.name: mutants_of(driver) for driver in drivers}
        check_list(equivalent, (m for each in mutants.values() for m in each), mutants)
    except (LookupError, ImportError, ListError) as exc:
        parser.error(str(exc))
    if options.left_out:
        _print_left_out(console, drivers)
        return 0
    mutants = {name: _chosen(found, options) for name, found in mutants.items()}
    if not any(mutants.values()):
        parser.error("no mutant is left; --list shows the ids")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    limited = options.seconds is not None or options.count is not None
    if not (limited or options.all or options.only or options.list):
        parser.error("say how much: --seconds, --count, --only or --all")
    campaign = Campaign(
        drivers=drivers,
        mutants=mutants,
        seed=seed,
        equivalent={} if options.only else equivalent,
        count=options.count,
        seconds=options.seconds,
        jobs=options.jobs,
        save=partial(_save, options.report),
    )
    if options.list:
        for mutant in campaign.order():
            console.print(_line(mutant), markup=False, highlight=False, soft_wrap=True)
        return 0
    console.print(f"mutants: seed={seed}", highlight=False)
    # A shell starts background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        verdicts = campaign.run(console)
    except UnsoundDriverError as exc:
        parser.exit(2, f"{parser.prog}: {exc}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: interrupted; everything is stopped\n")
    if options.only:
        for verdict in verdicts:
            console.print(described(verdict), markup=False, highlight=False, soft_wrap=True)
            if verdict.outcome != CAUGHT:
                print(entry_of(verdict.mutant))
    else:
        print_survivors(console, verdicts)
        print_tables(console, verdicts)
    counts = Counts.count(verdicts)
    if counts.has_too_many_equivalent and not options.only:
        print("more than a tenth of the mutants are called equivalent; judge them anew")
    print(counts.line(seed))
    enough = 100 * counts.share_caught >= options.at_least
    return 0 if enough and not counts.has_too_many_equivalent else 1


def _chosen(found: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    return [
        mutant
        for mutant in found
        if (not options.operator or mutant.operator in options.operator)
        and (not options.only or mutant.id in options.only)
    ]


def _save(path: Path | None, campaign: Campaign) -> None:
    if path is not None:
        write_report(path, campaign.seed, campaign.verdicts, campaign.sound)


def _line(mutant: Mutant) -> str:
    return (
        f"{mutant.id} {mutant.driver} {mutant.place} {mutant.function} {mutant.operator}: "
        f"{mutant.before}  ->  {mutant.after}"
    )


def _print_left_out(console: Console, drivers: Sequence[DriverUnderTest]) -> None:
    for driver in drivers:
        for code, reason in driver.left_out.items():
            text = f"{driver.name} {code}: {reason}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
