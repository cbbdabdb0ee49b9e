"""``streamq doctor``: checks whether the chosen backend is ready, and advises what to do."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from streamq._errors import ConfigurationError, StreamqError
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.calling._drivers import examine, open_driver, provision
from streamq.driver import (
    AnyDriver,
    DriverSettings,
    Finding,
    QueueOptions,
    TemporalEndpoint,
    leaving_sdk,
)
from streamq.driver_parts._credentials import mask_credentials, mask_data
from streamq.opening._data_converter import configured_conversion
from streamq.opening._open import configured_driver, open_reader, open_writer, stream_id
from streamq.opening._opening import Opening

from ._doctor_gateway import examine_gateway_settings
from ._doctor_tokens import ask_gateway, examine_issuer, examine_token
from ._terminal import (
    Table,
    needs_extra,
    run_async,
    show_json,
    show_note,
    show_table,
    stderr_line,
    stdout,
)
from ._token_revoke import read_token

_TEMPORAL_SECONDS = 10.0
_UNHEALTHY_EXIT = 1


def doctor(
    what: Annotated[
        Literal["backend", "gateway"],
        typer.Argument(help="What to check.", show_default=True),
    ] = "backend",
    create: Annotated[
        bool, typer.Option("--create", help="Create missing resources, such as topics.")
    ] = False,
    write: Annotated[
        bool,
        typer.Option("--write", help="Also write and read a small stream, and delete it again."),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(help="gateway: the address by which browsers reach it; it is asked."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="gateway: file with a token to verify; - reads standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """Check whether the backend, or the gateway, is ready, and advise what to do if it is not.

    `gateway` finds who can reach it and read what, weak keys, sites that may read, and clocks that
    differ; run it where the gateway runs. The exit code is 1 if a check fails. Changes nothing
    without --create or --write, except that SQLite's file is made if there is none.

    \b
    Examples:
      streamq doctor
      STREAMQ_BACKEND=kafka streamq doctor --create
      streamq doctor --write --json
      streamq doctor gateway --url https://streams.example.org
    """
    settings = load_settings()
    if what == "gateway":
        if create or write:
            raise ConfigurationError("--create and --write concern the backend: leave them out")
        token = None if token_file is None else read_token(token_file)
        raise typer.Exit(run_async(lambda: _examine_gateway(settings, url, token, as_json)))
    if url is not None or token_file is not None:
        raise ConfigurationError("--url and --token-file belong to: streamq doctor gateway")
    raise typer.Exit(run_async(lambda: _examine(settings, create, write, as_json)))


async def _examine(settings: Settings, create: bool, write: bool, as_json: bool) -> int:
    driver, options, driver_settings = configured_driver(settings)
    created: Sequence[str] = ()
    notes: list[str] = []
    if create:
        created = await provision(driver, options, driver_settings)
    findings = await _findings(driver, options, driver_settings)
    if write and all(finding.ok for finding in findings):
        findings.append(await _round_trip(settings, driver, options, driver_settings))
    elif write:
        notes.append("--write wrote nothing, since a check of the backend failed: mend that first")
    findings += _examine_codec(settings)
    temporal = await _examine_temporal(settings)
    findings += temporal
    if not temporal:
        notes.append(
            "Temporal was not looked at: nothing says where it is (TEMPORAL_ADDRESS, "
            "STREAMQ_TEMPORAL_ADDRESS or a profile in temporal.toml)"
            if importlib.util.find_spec("temporalio")
            else "Temporal was not looked at: its SDK is not installed (streamq[temporal])"
        )
    return _report(driver.name, created, findings, notes, as_json)


async def _examine_gateway(
    settings: Settings, url: str | None, token: str | None, as_json: bool
) -> int:
    with needs_extra("gateway"):
        from streamq.access import configured_issuers
        from streamq.gateway._app import build_app
    notes: list[str] = []
    try:
        issuers = configured_issuers(settings)
        build_app(settings=settings)  # raises what would keep it from starting
    except ConfigurationError as exc:
        found = [Finding("settings", False, str(exc), "the gateway does not start: correct this")]
        return _report("gateway", (), found, notes, as_json)
    findings = examine_gateway_settings(settings, issuers)
    for issuer in issuers:
        findings += await examine_issuer(issuer)
    if url is None:
        notes.append("the gateway itself was not asked: --url gives its address for browsers")
    else:
        findings += await ask_gateway(url, needs_tokens=bool(issuers))
    if token is None:
        notes.append("no token was verified: --token-file names one")
    elif not issuers:
        detail = "no issuer is configured, so the gateway does not look at tokens"
        findings.append(Finding("the token", False, detail, "set STREAMQ_TOKEN_KEY_FILE"))
    else:
        findings += await examine_token(settings, issuers, token)
    return _report("gateway", (), findings, notes, as_json)


def _report(
    title: str,
    created: Sequence[str],
    findings: Sequence[Finding],
    notes: Sequence[str],
    as_json: bool,
) -> int:
    if as_json:
        show_json(
            {
                "backend": title,
                "created": list(created),
                "findings": [mask_data(asdict(finding)) for finding in findings],
                "notes": list(notes),
            }
        )
    else:
        _show(title, created, findings)
        for note in notes:
            show_note(note)
    return 0 if all(finding.ok for finding in findings) else _UNHEALTHY_EXIT


async def _findings(
    driver: AnyDriver, options: QueueOptions, driver_settings: DriverSettings
) -> list[Finding]:
    try:
        return await examine(driver, options, driver_settings)
    except StreamqError as exc:
        return [Finding("server", False, str(exc), _remedy(driver))]


def _examine_codec(settings: Settings) -> list[Finding]:
    """Load the data converter that is configured: without it, encrypted streams are unreadable."""
    if not settings.data_converter:
        return []
    try:
        codec = configured_conversion(settings, stream_id("any", settings))[1]
    except StreamqError as exc:
        return [Finding("data converter", False, str(exc), "correct STREAMQ_DATA_CONVERTER")]
    found = "it has a codec" if codec else "it has no codec: payloads are stored as they are"
    return [Finding("data converter", True, f"{settings.data_converter}: {found}")]


async def _examine_temporal(settings: Settings) -> list[Finding]:
    """Connect to Temporal, if it is installed, and settings or Temporal's own state where it is."""
    if importlib.util.find_spec("temporalio") is None:
        return []
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
    from temporalio.service import RPCError

    subject, remedy = "temporal", "check STREAMQ_TEMPORAL_..., TEMPORAL_... and temporal.toml"
    try:
        endpoint = settings.temporal_target.resolve()
        if not endpoint.is_configured:
            return []
        async with leaving_sdk(), asyncio.timeout(_TEMPORAL_SECONDS):
            client = await endpoint.connect()
            service = client.workflow_service
            namespace = await service.describe_namespace(
                DescribeNamespaceRequest(namespace=endpoint.namespace)
            )
            system = await service.get_system_info(GetSystemInfoRequest())
    except TimeoutError:
        text = f"Temporal at {endpoint.address} did not answer within {_TEMPORAL_SECONDS:g} s"
        return [Finding(subject, False, text, remedy)]
    except RPCError as exc:
        return [_refused(exc.status.name, exc.message, endpoint)]
    except StreamqError as exc:
        return [Finding(subject, False, str(exc), remedy)]
    detail = (
        f"namespace {endpoint.namespace} at {endpoint.address}, "
        f"server {system.server_version or 'of unknown version'}"
    )
    findings = [Finding(subject, True, detail)]
    kept = namespace.config.workflow_execution_retention_ttl.ToTimedelta()
    if timedelta() < kept < settings.ttl:
        findings.append(
            Finding(
                "temporal's retention",
                True,
                f"ended workflows are kept for {kept}, streams for {settings.ttl}: later, a sweep "
                "cannot learn that the producer of a stream has ended",
                "lower STREAMQ_TTL_SECONDS, or let `streamq sweep` run often enough",
                is_warning=True,
            )
        )
    return findings


def _refused(status: str, message: str, endpoint: TemporalEndpoint) -> Finding:
    detail = f"namespace {endpoint.namespace} at {endpoint.address}: {message} ({status})"
    remedy = "check STREAMQ_TEMPORAL_..., TEMPORAL_... and temporal.toml"
    if status == "NOT_FOUND":
        remedy = (
            f"create it with `temporal operator namespace create -n {endpoint.namespace}`, or "
            "correct STREAMQ_TEMPORAL_NAMESPACE or TEMPORAL_NAMESPACE"
        )
    elif status in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        remedy = "check the API key (STREAMQ_TEMPORAL_API_KEY or TEMPORAL_API_KEY) and namespace"
    return Finding("temporal", False, detail, remedy)


async def _round_trip(
    settings: Settings,
    driver: AnyDriver,
    options: QueueOptions,
    driver_settings: DriverSettings,
) -> Finding:
    """Write, read and delete a stream: permissions can only be checked by using them."""
    name, subject = f"streamq-doctor/{uuid.uuid4()}", "a stream, written, read and deleted"
    try:
        async with Opening(
            partial(open_driver, driver, options, driver_settings), close=calling.close
        ) as queue:
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk("hello")
            async with open_reader(name, queue=queue, settings=settings) as reader:
                values = await reader.collect()
                await calling.delete(queue, reader.stream)
    except StreamqError as exc:
        return Finding(subject, False, str(exc), _remedy(driver))
    if values != ["hello"]:
        return Finding(subject, False, f"sent ['hello'], read {values!r}", "report this as a bug")
    return Finding(subject, True, "the stream was read as it was written")


def _remedy(driver: AnyDriver) -> str:
    prefix = driver.settings_type.model_config.get("env_prefix", "")
    return f"check the server, and the {prefix}... settings with: streamq config"


def _verdict(finding: Finding) -> Text:
    if not finding.ok:
        return Text("wrong", style="bold red")
    return Text("warn", style="yellow") if finding.is_warning else Text("ok", style="green")


def _show(backend: str, created: Sequence[str], findings: Sequence[Finding]) -> None:
    console = stdout()
    for line in created:
        console.print(Text.assemble(("created ", "green"), line), soft_wrap=True)
    table = Table()
    for title in ("", backend, "found", "what to do"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        table.add_row(
            _verdict(finding),
            Text(finding.subject),
            Text(mask_credentials(finding.detail)),
            Text(mask_credentials(finding.remedy)),
        )
    show_table(table, console)
    wrong = sum(not finding.ok for finding in findings)
    if wrong:
        stderr_line(Text(f"{wrong} of {len(findings)} checks failed", style="red"))
