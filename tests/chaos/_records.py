"""Reads the files of a run and makes the streams that the checker judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ._checker import Attempt, Seen, Stream
from ._ledger import read_ledger
from ._setup import Setup


def read_records(
    setup: Setup, readers: Sequence[str], outcomes: Mapping[str, str]
) -> Iterable[Stream]:
    """Return every stream of a run with its attempts and the events of its readers.

    Args:
        setup: Directories of the run.
        readers: Names of the readers.
        outcomes: Outcomes of the workflows, by stream.
    """
    streams: dict[str, Stream] = {}
    for line in read_ledger(setup.streams_path):
        name, plan = line["s"], line["plan"]
        outcome = outcomes.get(name, "")
        streams[name] = Stream(name, plan["policy"], plan["chunks"], outcome)
    for path in sorted(setup.attempts_directory.glob("*.jsonl")):
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
    return streams.values()
