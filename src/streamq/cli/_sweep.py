"""``streamq sweep``: seals and removes streams of crashed producers, now or on a schedule."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from streamq._events import shown
from streamq._settings import Settings, load_settings
from streamq._sweep import SweepRequest, SweepSummary, judge_nothing
from streamq._sweep import sweep as run_sweep
from streamq.driver import ChunkQueue, leaving_sdk
from streamq.opening._open import open_queue, stream_id
from streamq.opening._requirements import check_capabilities

from ._durations import duration
from ._names import named
from ._terminal import (
    Table,
    needs_extra,
    run_async,
    show_error,
    show_json,
    show_table,
    stderr,
    stderr_line,
    stdout,
)

if TYPE_CHECKING:
    from temporalio.client import Client

_GRACE = timedelta(seconds=SweepRequest.grace_seconds)
_STYLES = {"sealed": "green", "deleted": "green", "kept": "yellow", "failed": "red"}


def sweep(
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the streams.", show_default="STREAMQ_TENANT")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only streams whose name starts with this.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    temporal: Annotated[
        bool,
        typer.Option("--temporal/--no-temporal", help="Ask Temporal what has ended."),
    ] = True,
    grace: Annotated[
        timedelta,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Ignore what ended more recently than this.",
            show_default="60s",
        ),
    ] = _GRACE,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Also end streams whose workflow or activity the namespace does not know "
            "(deleted, past its retention, or running in another namespace).",
        ),
    ] = False,
    delete_persistent: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="AGE",
            help="Delete streams that never expire if their newest attempt began this long ago.",
        ),
    ] = None,
    schedule: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="EVERY",
            help="Let workers repeat this at this interval, by a Temporal schedule.",
        ),
    ] = None,
    task_queue: Annotated[
        str | None, typer.Option(help="With --schedule: task queue of workers with the plugin.")
    ] = None,
    unschedule: Annotated[bool, typer.Option("--unschedule", help="Delete the schedule.")] = False,
    encoded: Annotated[
        bool, typer.Option("--encoded", "-e", help="The prefix is percent-encoded.")
    ] = False,
) -> int:
    """Seal and remove streams that crashed producers have left.

    Removes streams that have expired and still use storage. Seals streams whose workflow, or
    activity without a workflow, has ended without sealing them, with an error: every reader ends at
    once, and they expire soon. Reports streams that never expire. Does not touch a stream whose
    producer runs, or may still run. The exit code is 2 if the sweep could not do all of its work.

    \b
    Examples:
      streamq sweep --dry-run
      streamq sweep --tenant shop --prefix order- --json
      streamq sweep --delete-persistent 7d
      streamq sweep --schedule 10m --task-queue poems
    """
    settings = load_settings() if tenant is None else load_settings(tenant=tenant)
    stream_id("any", settings)  # raises if the tenant is invalid
    request = SweepRequest(
        tenant=tenant,
        prefix=named(prefix, encoded=encoded),
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
        wrong = "Temporal keeps the schedule; remove --no-temporal"
    if wrong:
        raise typer.BadParameter(wrong)


def _sweep_now(settings: Settings, request: SweepRequest, *, temporal: bool, as_json: bool) -> int:
    async def work() -> int:
        async with open_queue(settings) as queue:
            # Without cross_process, this process cannot see the streams of others.
            check_capabilities(queue, ["cross_process"])
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
            stderr_line(Text(note, style="dim"))
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
        endpoint = settings.temporal_target.resolve()
    async with leaving_sdk():
        # Lazy: the sweep connects to Temporal only if it needs it.
        yield await endpoint.connect(lazy=True)


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
    if not console.is_terminal:
        yield lambda streams: None
        return
    with console.status("looking at streams") as status:
        yield lambda streams: status.update(f"{streams} streams looked at")


def _show(summary: SweepSummary) -> None:
    if summary.findings:
        table = Table()
        longest = max(len(shown(finding.stream)) for finding in summary.findings)
        # Not shortened, so that it can be copied.
        table.add_column("stream", min_width=longest, overflow="fold")
        table.add_column("would be" if summary.dry_run else "done")
        table.add_column("why", overflow="fold")
        for finding in summary.findings:
            done = Text(finding.done, style=_STYLES[finding.done])
            table.add_row(Text(shown(finding.stream)), done, Text(finding.reason))
        show_table(table, stdout())
    counts = [
        f"{summary.streams} streams of tenant {summary.tenant} on {summary.backend}",
        f"{summary.ended} had ended, {summary.running} of running producers, {summary.open} open",
        f"{summary.sealed} sealed, {summary.deleted} deleted, {summary.kept} kept, "
        f"{summary.failed} failed",
    ]
    if summary.expired is not None:
        counts.append(f"{summary.expired} expired ones removed")
    if summary.dry_run:
        counts.append("nothing was changed")
    _say("; ".join(counts))


def _say(line: str) -> None:
    stdout().print(Text(line), soft_wrap=True)
