"""Reads the files of a run and makes the streams that the checker judges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ._checker import Attempt, Seen, Stream
from ._ledger import read_ledger
from ._setup import Setup


def read_records(
    setup: Setup,
    readers: Sequence[str],
    outcomes: Mapping[str, str],
    *,
    is_fenced: bool,
    agrees_on_numbers: bool = True,
) -> Iterable[Stream]:
    """Return every stream of a run with its attempts and the events of its readers.

    Args:
        setup: Directories of the run.
        readers: Names of the readers.
        outcomes: Outcomes of the workflows, by stream.
        is_fenced: Whether the backend refuses what an attempt appends after the next one has begun.
            Otherwise acknowledgements of that time count for nothing.
        agrees_on_numbers: Whether writers and readers give an attempt the same number. Otherwise
            attempts are recognised by their chunks, which have to differ, and those after the one
            that ended the stream are left out: without replay they cannot know that it has ended.
    """
    streams: dict[str, Stream] = {}
    for line in read_ledger(setup.streams_path):
        name, plan = line["s"], line["plan"]
        outcome = outcomes.get(name, "")
        streams[name] = Stream(name, plan["policy"], plan["chunks"], outcome)
    paths = sorted(setup.attempts_directory.glob("*.jsonl"))
    beginnings = defaultdict(list) if is_fenced else _beginnings(paths)
    for path in paths:
        attempts: dict[tuple[str, int], Attempt] = {}
        for line in read_ledger(path):
            key = line["s"], line["e"]
            if line["t"] == "open":
                if line["discards"]:
                    continue  # the stream had already ended; this attempt's chunks are discarded
                attempts[key] = Attempt(path.name, line["e"], line["a"])
                streams[line["s"]].attempts.append(attempts[key])
            attempt = attempts.get(key)
            if attempt is None:
                continue
            if line["t"] == "send":
                attempt.sent[line["n"]] = line["d"]
            elif line["t"] == "ack":
                if not any(e > line["e"] and at <= line["at"] for e, at in beginnings[line["s"]]):
                    attempt.acknowledged = line["n"]
            elif line["t"] == "done":
                attempt.is_done = True
    for reader in readers:
        for line in read_ledger(setup.reader_path(reader)):
            stream = streams[line["s"]]
            if line["k"] == "error":
                stream.errors[reader] = line["text"]
                continue
            stream.seen.setdefault(reader, []).append(
                Seen(
                    line["k"],
                    line["o"],
                    line["a"],
                    line.get("n", -1),
                    line.get("d", ""),
                    line.get("state", ""),
                )
            )
    if not agrees_on_numbers:
        for stream in streams.values():
            _number_as_readers_do(stream)
    return streams.values()


def _number_as_readers_do(stream: Stream) -> None:
    """Give attempts the numbers that readers give them; leave out those after the end."""
    events = [event for log in stream.seen.values() for event in log]
    numbers = {event.digest: event.attempt for event in events if event.kind == "chunk"}
    ends = {event.attempt for event in events if event.kind == "end"}
    found: list[Attempt] = []
    for attempt in sorted(stream.attempts, key=lambda attempt: attempt.epoch):
        read = [numbers[digest] for digest in attempt.sent.values() if digest in numbers]
        if attempt.is_done and not attempt.sent:
            read = [*ends]  # it had nothing to send
        attempt.number = min(read, default=-1 - len(found))
        found.append(attempt)
        if attempt.number in ends:
            break
    stream.attempts = found


def _beginnings(paths: Iterable[Path]) -> defaultdict[str, list[tuple[int, float]]]:
    """Return by stream the epochs of attempts, and when Temporal started each."""
    found: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in paths:
        for line in read_ledger(path):
            if line["t"] == "open":
                found[line["s"]].append((line["e"], line["began"]))
    return found
