"""``streamq demo``: backends, endings, views and cleanup."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from streamq.devserver import TemporalDevServer

from .command import Cli, Finished, Inside, get, one_error, read_until
from .processes import descendants, wait_until

TEXT = resources.files("streamq.cli.demo").joinpath("bundled_text.txt").read_text("utf-8")
WORDS = len(TEXT.split())


def summary_of(finished: Finished) -> Mapping[str, Any]:
    """Return the summary of a demo that went well."""
    assert finished.code == 0, finished
    found = json.loads(finished.out)
    assert isinstance(found, dict)
    return found


def test_one_variable_changes_the_backend(cli: Cli) -> None:
    """The same program has to run on any backend."""
    backends = ["memory", "sqlite", "redis"]
    started = [
        cli.start("demo", "--pace", "300", "--json", env={"STREAMQ_BACKEND": backend})
        for backend in backends
    ]
    for backend, process in zip(backends, started, strict=True):
        finished = cli.finish(process)
        found = summary_of(finished)
        assert (found["backend"], found["state"], found["attempts"]) == (backend, "END", 1)
        assert (found["chunks"], found["chunk_bytes"]) == (WORDS, len(TEXT.encode()))
        assert TEXT in finished.err
        for name in ("first_chunk_seconds", "latency_seconds", "latency_p99_seconds"):
            assert 0 < found[name] < 5
        assert found["head_start_seconds"] > 0.4  # of the 0.7 s that the text takes
        assert found["history_events"] < 20
    assert cli.alive() == []


def test_unreachable_temporal_is_one_line_with_advice(inside: Inside) -> None:
    """Whoever only tries streamq needs no Temporal server, and may not know that."""
    message = one_error(inside.run("demo", "--temporal-address", "127.0.0.1:1"))
    assert "cannot connect to Temporal at 127.0.0.1:1" in message
    assert "--temporal-address '' runs a Temporal server for the demo only" in message


def test_chunks_can_pass_through_the_workflow(cli: Cli, temporal: TemporalDevServer) -> None:
    """With `--delivery poll` the workflow gets them, and its history shows the cost."""
    env = {"STREAMQ_TEMPORAL_ADDRESS": temporal.address}
    found = summary_of(cli.run("demo", "--pace", "300", "--json", "--delivery", "poll", env=env))
    assert (found["delivery"], found["chunks"]) == ("poll", WORDS)
    assert 20 < found["history_events"] < WORDS


def test_without_a_terminal_the_text_grows_as_it_arrives(
    cli: Cli, temporal: TemporalDevServer
) -> None:
    """`make demo | cat` shows words as they arrive, and the stream can be read again."""
    process = cli.start("demo", "--pace", "200", "--temporal-address", temporal.address)
    begun = read_until(process, "The words you are")
    assert "open http://127.0.0.1:" in begun
    assert process.poll() is None
    rest = cli.finish(process)
    assert rest.code == 0
    assert rest.err == ""
    assert "\x1b" not in begun + rest.out
    assert TEXT in begun + rest.out
    assert re.search(r"^workflow history +11 events$", rest.out, re.MULTILINE)
    last = rest.out.splitlines()[-1]
    assert last.startswith("Read it again: STREAMQ_BACKEND=sqlite streamq tail ")
    assert cli.run("tail", last.split()[-1]).out == TEXT


def test_on_a_terminal_a_panel_shows_the_text(cli: Cli) -> None:
    """On a terminal, users get a live view."""
    ours, theirs = os.openpty()
    env = {"TERM": "xterm-256color", "STREAMQ_TEMPORAL_NAMESPACE": "elsewhere"}
    process = cli.start("demo", "--pace", "300", env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:
        pass  # the error that Linux raises when the other side is closed
    os.close(ours)
    assert process.wait(30) == 0
    text = seen.decode()
    assert "attempt 1: live" in text
    assert "attempt 1: END" in text
    assert "╭" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert "Traceback" not in text


def test_a_retry_is_shown_once(cli: Cli, temporal: TemporalDevServer) -> None:
    """The demo shows what happens to the text of a failed attempt."""
    process = cli.start(
        "demo", "--fail-once", "--pace", "300", "--temporal-address", temporal.address
    )
    shown = cli.finish(process)
    assert shown.code == 0
    assert shown.err == ""
    before, notice, after = shown.out.partition("-- attempt 1 failed")
    assert notice
    assert TEXT.startswith(before.partition("\n\n")[2].rstrip("\n")[:100])
    assert TEXT in after
    assert re.search(r"^attempts +2$", shown.out, re.MULTILINE)


def test_the_page_stays_with_keep_until_ctrl_c(cli: Cli, temporal: TemporalDevServer) -> None:
    """Users have time for the page, and Ctrl-C is then no failure."""
    process = cli.start("demo", "--pace", "0", "--keep", "--temporal-address", temporal.address)
    out = read_until(process, "until Ctrl-C.")
    page = re.search(r"^open (http://\S+)$", out, re.MULTILINE)
    assert page is not None
    with get(page[1]) as answer:
        assert b"<html" in answer.read()
    base, _, name = page[1].partition("/?stream=")
    with get(f"{base}/streams/{name}") as answer:
        assert json.load(answer)["state"] == "END"
    process.send_signal(signal.SIGINT)
    assert cli.finish(process).code == 0
    cli.wait_until_none_alive()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_everything_in_order(cli: Cli, sent: signal.Signals, code: int) -> None:
    """No server, worker or command outlives the demo, and the stream has an ending."""
    process = cli.start("demo", "--exec", "echo started; sleep 1000 & sleep 1000")
    out = read_until(process, "\nstarted")
    wait_until(lambda: list(descendants(process.pid).values()).count("sleep") == 2)
    assert "temporal" in descendants(process.pid).values()
    process.send_signal(sent)
    finished = cli.finish(process)
    assert finished.code == code
    assert "Traceback" not in finished.err
    assert finished.err == ""
    cli.wait_until_none_alive()
    name = re.search(r"stream=(\S+)", out)
    assert name is not None
    assert "CANCELLED" in cli.run("tail", name[1]).err


def test_the_servers_of_a_killed_demo_end(cli: Cli) -> None:
    """Even after `kill -9` Temporal and Redis servers are ended."""
    process = cli.start("demo", "--pace", "20", env={"STREAMQ_BACKEND": "redis"})
    read_until(process, "The words")
    servers = descendants(process.pid)
    assert {"temporal", "valkey-server"} <= set(servers.values())
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(cli: Cli, sent: signal.Signals, code: int) -> None:
    """A second Ctrl-C ends the demo without waiting, and still leaves nothing running."""
    process = cli.start("demo", "--exec", "trap '' TERM; echo started; sleep 1000; sleep 1000")
    read_until(process, "\nstarted")
    process.send_signal(sent)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(sent)
    assert process.wait(1) == code
    cli.wait_until_none_alive()


def test_the_command_of_a_killed_demo_ends(cli: Cli, temporal: TemporalDevServer) -> None:
    """Even after `kill -9` the command is ended."""
    env = {"STREAMQ_TEMPORAL_ADDRESS": temporal.address}
    process = cli.start("demo", "--exec", "echo started; sleep 1000 & sleep 1000", env=env)
    read_until(process, "\nstarted")
    process.kill()
    process.wait()
    cli.wait_until_none_alive()


def test_an_early_signal_leaves_nothing_behind(cli: Cli) -> None:
    """Users may interrupt the demo while it is still starting."""
    process = cli.start("demo")
    wait_until(lambda: "temporal" in descendants(process.pid).values())
    process.send_signal(signal.SIGINT)
    finished = cli.finish(process)
    assert (finished.code, finished.err) == (130, "")
    cli.wait_until_none_alive()


def test_a_temporal_server_that_runs_already_can_be_used(
    cli: Cli, temporal: TemporalDevServer
) -> None:
    """The demo can run on the user's own cluster, and leaves no running workflow there."""
    process = cli.start("demo", "--pace", "20", env={"STREAMQ_TEMPORAL_ADDRESS": temporal.address})
    out = read_until(process, "The words")
    assert f"Temporal at {temporal.address}\n" in out
    assert "temporal" not in descendants(process.pid).values()
    process.send_signal(signal.SIGINT)
    assert cli.finish(process).code == 130
    workflow = re.search(r"stream=([^/]+)/", out)
    assert workflow is not None
    api = f"http://127.0.0.1:{temporal.http_port}/api/v1/namespaces/default/workflows"
    with get(f"{api}/{workflow[1]}") as answer:
        status = json.load(answer)["workflowExecutionInfo"]["status"]
    assert status == "WORKFLOW_EXECUTION_STATUS_CANCELED"


def test_an_unreachable_service_is_one_line_before_anything_starts(cli: Cli) -> None:
    """A wrong address is reported at once, without credentials."""
    temporal = one_error(cli.run("demo", "--temporal-address", "127.0.0.1:1"))
    assert "Temporal at 127.0.0.1:1" in temporal
    assert "Connection refused" in temporal
    redis = one_error(
        cli.run("demo", "--backend", "redis", env={"STREAMQ_REDIS_URL": "redis://:x@127.0.0.1:1"})
    )
    assert "Redis at 127.0.0.1:1" in redis
    assert ":x@" not in redis
    cli.wait_until_none_alive()


def test_a_missing_namespace_is_one_line(cli: Cli, temporal: TemporalDevServer) -> None:
    """A cluster that answers may still be the wrong one."""
    env = {
        "STREAMQ_TEMPORAL_ADDRESS": temporal.address,
        "STREAMQ_TEMPORAL_NAMESPACE": "elsewhere",
    }
    assert "'elsewhere'" in one_error(cli.run("demo", env=env))
