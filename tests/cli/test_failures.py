"""Failures of every kind: one line, one exit code; and streams that somebody has closed."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from pathlib import Path

import pytest

from streamq import BackendError, ConfigurationError, open_writer
from streamq.cli._failures import reported
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue

from .command import Cli, Inside, get, one_error, read_until

GROUP = ExceptionGroup
FAILURES: dict[str, tuple[BaseException, str]] = {
    "group": (GROUP("g", [BackendError("first"), BackendError("second")]), "first; second"),
    "group of the same": (GROUP("g", [BackendError("it"), BackendError("it")]), "it"),
    "nested": (GROUP("g", [GROUP("h", [ConfigurationError("inner")])]), "inner"),
    "with cancellations": (
        BaseExceptionGroup("g", [asyncio.CancelledError(), BackendError("why")]),
        "why",
    ),
    "many": (GROUP("g", [BackendError(f"e{i}") for i in range(9)]), "e0; e1; e2; and 6 more"),
    "several lines": (BackendError("one\ntwo\r\nthree"), "one two three"),
    "unexpected": (KeyError("x"), "unexpected KeyError: 'x'; STREAMQ_DEBUG=1 shows"),
    "without text": (AssertionError(), "unexpected AssertionError; STREAMQ_DEBUG=1"),
    "time-out": (TimeoutError(), "unexpected TimeoutError"),
    "memory": (MemoryError(), "unexpected MemoryError"),
    "file": (
        FileNotFoundError(errno.ENOENT, "No such file", "a\x1bb"),
        "[Errno 2] No such file: 'a",
    ),
    "stdout": (OSError(errno.ENOSPC, "No space left"), "writing stdout: No space left"),
}


@pytest.mark.parametrize(("failure", "line"), FAILURES.values(), ids=[*FAILURES])
def test_a_failure_is_one_line(
    capsys: pytest.CaptureFixture[str], failure: BaseException, line: str
) -> None:
    """A script reads the exit code, and a person one line."""
    assert reported(failure) == 2
    [shown] = capsys.readouterr().err.splitlines()
    assert shown.startswith(f"error: {line}")


def test_interruptions_keep_their_codes_in_groups() -> None:
    """Ctrl-C in a task of a group is Ctrl-C."""
    assert reported(BaseExceptionGroup("g", [KeyboardInterrupt(), BackendError("x")])) == 130
    assert reported(GROUP("g", [BrokenPipeError()])) == 141


async def test_a_group_from_a_command_is_one_line(
    cli: Cli, inside: Inside, queue: ChunkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that run together fail together: a server may refuse each of them."""
    for name in ("a", "b"):
        async with open_writer(name, queue=queue) as stream:
            await stream.send_chunk("x")

    async def refuses(*_: object, **__: object) -> None:
        raise BackendError("this user may not read streams")

    monkeypatch.setattr(type(queue), "describe", refuses)
    message = one_error(await asyncio.to_thread(inside.run, "ls"))
    assert message == "error: this user may not read streams"


FULL = Path("/dev/full")
CLOSED = {
    ">&-": (2, "error: writing stdout: it is closed"),
    ">/dev/full": (2, "error: writing stdout: No space left on device"),
    "2>&-": (0, ""),
    "2>/dev/full": (0, ""),
    "<&-": (0, "-- END"),
    ">&- 2>&- <&-": (2, ""),
}


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
async def test_closed_streams_are_no_crash(cli: Cli, queue: ChunkQueue) -> None:
    """Daemons start commands so; a lost result is a failure, a lost notice is not."""
    async with open_writer("s", queue=queue) as stream:
        await stream.send_chunk("text")
    command = f"exec {sys.executable} -m streamq.cli tail s "
    started = [cli.start(program=["sh", "-c", command + closing]) for closing in CLOSED]
    for process, (closing, (code, line)) in zip(started, CLOSED.items(), strict=True):
        out, err = await asyncio.to_thread(process.communicate, None, 60)
        assert process.returncode == code, (closing, err)
        assert err.decode().startswith(line)
        assert len(err.splitlines()) == bool(line)
        assert bool(out) is (code == 0)


def test_a_traceback_is_shown_on_request_only(inside: Inside) -> None:
    """Whoever reports a bug needs it, and nobody else."""
    (inside.directory / "streamq.toml").write_text('backend = "no"\n')
    assert "Traceback" not in inside.run("ls").err
    shown = inside.run("ls", env={"STREAMQ_DEBUG": "1"})
    assert (shown.code, "Traceback" in shown.err) == (2, True)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(cli: Cli) -> None:
    """A script's `streamq serve &` is not ended by Ctrl-C for the script, as no program is."""
    command = f"trap '' INT HUP; exec {sys.executable} -m streamq.cli serve --port 0"
    process = cli.start(program=["sh", "-c", command])
    read_until(process, "serves backend")
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(name)
    assert process.wait(30) == 0  # by SIGTERM


def test_a_gateway_that_others_can_read_says_so(cli: Cli) -> None:
    """It asks for no credentials, and the address that it prints has to work."""
    process = cli.start("serve", "--port", "0", "--host", "0.0.0.0")
    shown = read_until(process, "Ctrl-C stops it")
    url = shown.split()[0]
    assert url.startswith("http://127.0.0.1:")
    assert get(url).status == 200
    warning = read_until(process, "\n", from_stderr=True)
    assert warning.startswith("warning: ")
    assert "may read, list every stream of tenant default" in warning
    process.terminate()
    assert process.wait(30) == 0


def test_a_gateway_that_takes_tokens_in_the_clear_says_so(cli: Cli) -> None:
    """It does ask for credentials, and whoever is on the way can read them."""
    env = {"STREAMQ_TOKEN_KEY": "s" * 40}
    process = cli.start("serve", "--port", "0", "--host", "0.0.0.0", env=env)
    read_until(process, "Ctrl-C stops it")
    warning = read_until(process, "\n", from_stderr=True)
    assert "takes tokens without encryption" in warning
    process.terminate()
    assert process.wait(30) == 0


def test_doctor_finds_what_is_wrong_with_temporal(
    inside: Inside, temporal: TemporalDevServer
) -> None:
    """A worker that cannot reach Temporal says so much later, and elsewhere."""
    where = {"STREAMQ_TEMPORAL_ADDRESS": temporal.address}
    fine = inside.run("doctor", env=where)
    assert fine.code == 0
    assert "server 1." in fine.out
    wrong = {
        "namespace": ({**where, "STREAMQ_TEMPORAL_NAMESPACE": "nope"}, "operator namespace create"),
        "address": ({"STREAMQ_TEMPORAL_ADDRESS": "127.0.0.1:1"}, "cannot connect to Temporal"),
        "scheme": ({"STREAMQ_TEMPORAL_ADDRESS": f"http://{temporal.address}"}, "without a scheme"),
        "TLS": ({**where, "STREAMQ_TEMPORAL_TLS": "true"}, "speaks no TLS"),
        "converter": ({**where, "STREAMQ_DATA_CONVERTER": "no:thing"}, "there is no module 'no'"),
    }
    for env, found in wrong.values():
        done = inside.run("doctor", env=env)
        assert done.code == 1
        assert found in " ".join(done.out.split())
    unset = inside.run(
        "doctor",
        "--write",
        env={"STREAMQ_BACKEND": "redis"} | {"STREAMQ_REDIS_URL": "redis://127.0.0.1:1/0"},
    )
    assert "nothing says where it is" in unset.err
    assert "--write wrote nothing" in unset.err
