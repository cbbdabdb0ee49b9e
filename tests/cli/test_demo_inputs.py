"""``streamq demo``: everything that it can stream."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from streamq import ConfigurationError
from streamq.cli.demo._plan import choose_source
from streamq.devserver import TemporalDevServer

from .command import Cli, one_error, read_until

KEY = "sk-hunter2"


def test_output_of_a_command_arrives_while_it_runs(cli: Cli) -> None:
    """The first line is here while the command waits for us to let it go on."""
    gate = cli.directory / "gate"
    os.mkfifo(gate)
    process = cli.start("demo", "--exec", "echo first >&2; read word < gate; echo $word")
    begun = read_until(process, "\nfirst\n")
    assert "last" not in begun
    gate.write_text("last\n")
    finished = cli.finish(process)
    assert finished.code == 0
    assert "\nlast\n" in f"\n{finished.out}"


def test_what_a_command_leaves_in_the_background_is_not_waited_for(cli: Cli) -> None:
    """A daemon that keeps the output open would hold the demo for ever."""
    holder = "setsid sleep 20 & echo $! > holder; echo last"
    shown = cli.run("demo", "--exec", holder)
    assert (shown.code, shown.err) == (0, "")
    assert "\nlast\n" in shown.out
    os.kill(int((cli.directory / "holder").read_text()), signal.SIGKILL)  # it runs still


def test_half_a_character_is_not_shown_as_two_broken_ones(cli: Cli) -> None:
    """Output does not come in whole characters."""
    command = r"printf '\303'; sleep 0.05; printf '\274ber \377\n'"
    assert "über �\n" in cli.run("demo", "--exec", command).out


def test_a_command_that_fails_fails_the_demo(cli: Cli) -> None:
    """Its output is still there, and its exit status is told."""
    finished = cli.run("demo", "--exec", "echo output; exit 3", "--json")
    assert finished.code == 1
    assert "output\n" in finished.err
    last = finished.err.splitlines()[-1]
    assert last == (
        "error: the stream ended with ERROR: CommandFailed: the command ended with exit status 3"
    )
    found = json.loads(finished.out)
    assert (found["state"], found["attempts"], found["chunks"]) == ("ERROR", 1, 1)


def test_a_file_is_streamed_unchanged(cli: Cli) -> None:
    """Whatever is in it: long words, blank lines, other line endings."""
    text = "  begin\r\n\n" + "word " * 900 + "x" * 40_000 + "\tü\n end"
    (cli.directory / "some file.txt").write_bytes(text.encode())
    commands = [
        ["demo", "--file", "some file.txt", "--pace", pace, "--json"] for pace in ("0", "100000")
    ]
    for finished in cli.run_each(commands, env={"STREAMQ_BACKEND": "memory"}):
        assert finished.code == 0
        assert text in finished.err


def test_an_empty_file_is_an_empty_stream(cli: Cli) -> None:
    """Nothing is a possible output."""
    (cli.directory / "empty").touch()
    shown = cli.run("demo", "--file", "empty", "--json")
    assert shown.code == 0
    found = json.loads(shown.out)
    assert (found["state"], found["chunks"], found["latency_seconds"]) == ("END", 0, None)


def test_standard_input_is_streamed_as_it_arrives(cli: Cli) -> None:
    """Any program's output can be piped into a stream."""
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reading, os.fdopen(theirs, "wb", buffering=0) as writing:
        process = cli.start("demo", "--stdin", stdin=reading)
        reading.close()
        writing.write(b"one\n")
        read_until(process, "\none\n")
        writing.write(b"two\n")
        read_until(process, "two\n")
        writing.close()
        assert cli.finish(process).code == 0


def test_standard_input_may_be_a_file(cli: Cli) -> None:
    """`< file` is no pipe."""
    path = cli.directory / "input"
    path.write_text("from a file\n")
    with path.open("rb") as file:
        process = cli.start("demo", "--file", "-", stdin=file)
        assert "\nfrom a file\n" in cli.finish(process).out


def test_unusable_inputs_are_one_line_and_nothing_starts(cli: Cli) -> None:
    """What cannot work is told before any server runs."""
    assert "--file /no/such/file" in one_error(cli.run("demo", "--file", "/no/such/file"))
    assert cli.alive() == []


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("--file .", {"file": "."}),
        ("--file and --exec", {"file": "x", "command": "true"}),
        ("--file and --stdin", {"file": "x", "stdin": True}),
        ("--exec needs a command", {"command": " "}),
        ("--pace is for files", {"command": "true", "pace": 5.0}),
        ("read twice", {"stdin": True, "fail_once": True}),
        ("--model needs", {"model": "x"}),
        ("OPENAI_API_KEY", {"prompt": "hello"}),
    ],
)
def test_inputs_that_cannot_work_are_refused(
    expected: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the option to change."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    nothing = dict.fromkeys(("file", "command", "prompt", "model", "pace"))
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        choose_source(**{**nothing, "stdin": False, "fail_once": False, **options})


@pytest.fixture(autouse=True)
def _shared_temporal(cli: Cli, temporal: TemporalDevServer) -> None:
    cli.environment["STREAMQ_TEMPORAL_ADDRESS"] = temporal.address


class _Model(ThreadingHTTPServer):
    """A server that speaks the streaming format of chat completions."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers: dict[str, list[tuple[int, Sequence[str]]]] = {}
        self.questions: list[tuple[str, str | None, dict[str, object]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, *lines: str, status: int = 200, model: str = "tiny") -> None:
        self.answers.setdefault(model, []).append((status, lines))


class _Answer(BaseHTTPRequestHandler):
    server: _Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.questions.append((self.path, self.headers["Authorization"], body))
        status, lines = self.server.answers[body["model"]].pop(0)
        self.send_response(status)
        self.end_headers()
        for line in lines:
            self.wfile.write(f"{line}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[_Model]:
    with _Model() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def token(text: str | None) -> str:
    delta = {"role": "assistant"} if text is None else {"content": text}
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]})


def test_the_answer_of_a_model_is_streamed(cli: Cli, model: _Model) -> None:
    """The example that most people came for."""
    model.answer(": hello", token(None), token("Blue "), token("skies"), "data: [DONE]")
    env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": KEY}
    shown = cli.run("demo", "--prompt", "Why?", "--model", "tiny", env=env)
    assert shown.code == 0
    assert "\nBlue skies\n" in shown.out
    assert re.search(r"^chunks +2 ", shown.out, re.MULTILINE)
    path, authorization, question = model.questions[0]
    assert path == "/v1/chat/completions"
    assert authorization == f"Bearer {KEY}"
    assert question == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
    }


def test_an_answer_that_breaks_off_is_asked_for_again(cli: Cli, model: _Model) -> None:
    """Half an answer must not look like a whole one."""
    model.answer(token("Half "))
    model.answer(token("Whole"), "data: [DONE]")
    env = {"OPENAI_BASE_URL": model.url, "OPENAI_MODEL": "tiny"}
    shown = cli.run("demo", "--prompt", "Why?", env=env)
    assert shown.code == 0
    before, _, after = shown.out.partition("-- attempt 1 failed")
    assert "Half" in before
    assert "\nWhole\n" in after
    assert model.questions[0][1] is None  # without a key none is sent


def test_a_model_that_refuses_is_told_without_the_key(cli: Cli, model: _Model) -> None:
    """Servers repeat keys in their errors; terminals and histories must not."""
    refusals = [
        (401, '{"error": {"message": "bad key ' + KEY + '"}}', "HTTP status 401: bad key ****"),
        (404, "<html>no", "HTTP status 404: <html>no"),
        (200, 'data: {"error": "overheated", "choices": 5}', "something else"),
        (200, "data: hello", "something else"),
    ]
    for number, (status, line, _) in enumerate(refusals):
        model.answer(line, status=status, model=str(number))
    finished = cli.run_each(
        [["demo", "--prompt", "Why?", "--model", str(n), "--json"] for n in range(len(refusals))],
        env={
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": KEY,
            "STREAMQ_BACKEND": "memory",
        },
    )
    for each, (_, _, expected) in zip(finished, refusals, strict=True):
        assert each.code == 1
        assert expected in each.err
        assert KEY not in each.out + each.err
    assert len(model.questions) == len(refusals)


def test_a_key_that_cannot_be_sent_is_refused_unseen(cli: Cli) -> None:
    """A newline at its end is a common accident; HTTP libraries print the key over it."""
    message = one_error(cli.run("demo", "--prompt", "x", env={"OPENAI_API_KEY": KEY + "\n"}))
    assert "OPENAI_API_KEY" in message
    assert KEY not in message
