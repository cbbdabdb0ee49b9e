"""``streamq sweep``: put away what crashed producers left, now or on a schedule."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from streamq._open import open_queue, stream_id
from streamq._requirements import check_capabilities
from streamq._settings import Settings, load_settings
from streamq._sweep import SweepRequest, SweepSummary, judge_nothing
from streamq._sweep import sweep as run_sweep
from streamq.driver import ChunkQueue

from ._terminal import needs_extra, run_async, show_error, show_json, show_table, stderr, stdout

if TYPE_CHECKING:
    from temporalio.client import Client

_GRACE = timedelta(seconds=SweepRequest.grace_seconds)
_SDK_SECONDS = 0.05
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_STYLES = {"sealed": "green", "deleted": "green", "kept": "yellow", "failed": "red"}


def _duration(text: str | timedelta) -> timedelta:
    if isinstance(text, timedelta):
        return text  # typer passes defaults through here as well
    match = _DURATION.fullmatch(text.strip())
    try:
        if match is not None:
            return timedelta(**{_UNITS[match[2] or "s"]: float(match[1])})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 10m, 36h or 7d")


def sweep(
    tenant: Annotated[
        str | None, typer.Option(help="Whose streams.", show_default="STREAMQ_TENANT")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only streams whose name starts with this.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the account as JSON.")] = False,
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal/--no-temporal", help="Ask Temporal which workflows are over, or do not."
        ),
    ] = True,
    grace: Annotated[
        timedelta,
        typer.Option(
            parser=_duration,
            metavar="DURATION",
            help="Leave workflows alone that ended less long ago than this.",
            show_default="60s",
        ),
    ] = _GRACE,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Also end streams whose workflow the namespace does not know (deleted, past its "
            "retention: or running in another namespace).",
        ),
    ] = False,
    delete_persistent: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration,
            metavar="AGE",
            help="Delete streams that never expire, if their newest attempt began this long ago.",
        ),
    ] = None,
    schedule: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration,
            metavar="EVERY",
            help="Have workers do this again and again, by a Temporal schedule.",
        ),
    ] = None,
    task_queue: Annotated[
        str | None, typer.Option(help="With --schedule: of workers with the plugin.")
    ] = None,
    unschedule: Annotated[
        bool, typer.Option("--unschedule", help="Take the schedule away.")
    ] = False,
) -> int:
    """End and remove what crashed producers left.

    Streams that have expired and still take room are removed. Streams whose workflow is over and
    did not end them are sealed with an error, so that every reader ends at once, and expire soon.
    Streams that never expire are reported. Nothing is done to a stream whose workflow still runs,
    or might. The exit code is 2 if something kept the sweep from doing all of its work.

    \b
    Examples:
      streamq sweep --dry-run
      streamq sweep --tenant shop --prefix order- --json
      streamq sweep --delete-persistent 7d
      streamq sweep --schedule 10m --task-queue poems
    """
    settings = load_settings() if tenant is None else load_settings(tenant=tenant)
    stream_id("any", settings)  # says what is wrong with the tenant
    request = SweepRequest(
        tenant=tenant,
        prefix=prefix,
        grace_seconds=grace.total_seconds(),
        unknown=unknown,
        delete_persistent_seconds=None
        if delete_persistent is None
        else delete_persistent.total_seconds(),
        dry_run=dry_run,
    )
    _check(schedule, task_queue, unschedule=unschedule, temporal=temporal)
    if schedule is not None and task_queue is not None:
        return _schedule(settings, request, schedule, task_queue)
    if unschedule:
        return _unschedule(settings, request)
    return _sweep_now(settings, request, temporal=temporal, as_json=as_json)


def _check(
    schedule: timedelta | None, task_queue: str | None, *, unschedule: bool, temporal: bool
) -> None:
    wrong = ""
    if schedule is not None and unschedule:
        wrong = "--schedule and --unschedule contradict each other"
    elif (schedule is None) != (task_queue is None):
        wrong = "--schedule and --task-queue need each other"
    elif not temporal and (schedule is not None or unschedule):
        wrong = "a schedule is kept by Temporal; leave --no-temporal out"
    if wrong:
        raise typer.BadParameter(wrong)


def _sweep_now(settings: Settings, request: SweepRequest, *, temporal: bool, as_json: bool) -> int:
    async def work() -> int:
        async with open_queue(settings) as queue:
            check_capabilities(queue, ["cross_process"])  # else there is nothing to see from here
            with _progress() as on_progress:
                if temporal:
                    summary = await _with_temporal(queue, settings, request, on_progress)
                else:
                    summary = await run_sweep(
                        queue, settings, request, judge_nothing, on_progress=on_progress
                    )
        if as_json:
            show_json(dataclasses.asdict(summary))
        else:
            _show(summary)
        for note in summary.notes:
            stderr().print(Text(note, style="dim"))
        for problem in summary.problems:
            show_error(problem)
        return 2 if summary.problems or summary.failed else 0

    return run_async(work)


async def _with_temporal(
    queue: ChunkQueue, settings: Settings, request: SweepRequest, on_progress: Callable[[int], None]
) -> SweepSummary:
    with needs_extra("temporal"):
        from streamq.temporal.sweeping._activity import sweep_queue

    async with _client(settings) as client:
        return await sweep_queue(queue, settings, client, request, on_progress=on_progress)


@contextlib.asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[Client]:
    with needs_extra("temporal"):
        from temporalio.client import Client

    try:
        # Lazy: whether Temporal is needed at all, and is there, shows later.
        yield await Client.connect(
            settings.temporal_address, namespace=settings.temporal_namespace, lazy=True
        )
    finally:
        # The SDK's thread that brought the last answer still has to leave the interpreter; ending
        # it at this moment aborts the process (PyGILState_Release).
        await asyncio.sleep(_SDK_SECONDS)


def _schedule(settings: Settings, request: SweepRequest, every: timedelta, task_queue: str) -> int:
    with needs_extra("temporal"):
        from streamq.temporal import schedule_sweep
        from streamq.temporal.sweeping._schedule import schedule_id

    async def work() -> int:
        async with _client(settings) as client:
            is_new = await schedule_sweep(
                client, settings.tenant, request, every=every, task_queue=task_queue
            )
        name = schedule_id(settings.tenant, request.prefix)
        done = "created" if is_new else "updated"
        _say(f"schedule {name} {done}: every {every} on task queue {task_queue}")
        return 0

    return run_async(work)


def _unschedule(settings: Settings, request: SweepRequest) -> int:
    with needs_extra("temporal"):
        from streamq.temporal import unschedule_sweep
        from streamq.temporal.sweeping._schedule import schedule_id

    async def work() -> int:
        async with _client(settings) as client:
            was_there = await unschedule_sweep(client, settings.tenant, request.prefix)
        name = schedule_id(settings.tenant, request.prefix)
        _say(f"schedule {name} " + ("deleted" if was_there else "does not exist"))
        return 0

    return run_async(work)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many streams have been looked at."""
    console = stderr()
    with console.status("looking at streams") as status:
        yield lambda streams: status.update(f"{streams} streams looked at")


def _show(summary: SweepSummary) -> None:
    if summary.findings:
        table = Table()
        longest = max(len(finding.stream) for finding in summary.findings)
        # To be copied, so never shortened.
        table.add_column("stream", min_width=longest, overflow="fold")
        table.add_column("would be" if summary.dry_run else "done")
        table.add_column("why", overflow="fold")
        for finding in summary.findings:
            done = Text(finding.done, style=_STYLES[finding.done])
            table.add_row(Text(finding.stream), done, Text(finding.reason))
        show_table(table, stdout())
    counts = [
        f"{summary.streams} streams of tenant {summary.tenant} on {summary.backend}",
        f"{summary.ended} had ended, {summary.running} of running workflows, {summary.open} open",
        f"{summary.sealed} sealed, {summary.deleted} deleted, {summary.kept} kept, "
        f"{summary.failed} failed",
    ]
    if summary.expired is not None:
        counts.append(f"{summary.expired} expired ones removed")
    if summary.dry_run:
        counts.append("nothing was touched")
    _say("; ".join(counts))


def _say(line: str) -> None:
    stdout().print(Text(line), soft_wrap=True)
