"""Write the fact tables of the documents from the code that they describe.

python docs/generate.py            # renew them
python docs/generate.py --check    # exit code 1 if one is out of date
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from streamq import (
    Chunk,
    Encoding,
    Event,
    Reset,
    Seal,
    SealState,
    Settings,
    installed_drivers,
    load_driver,
)
from streamq.a2a import AgentValue, ArtifactNote, FileContent, FileReference, StatusNote
from streamq.a2a._entries import State, Told, state_of, status_json
from streamq.a2a.worker._merge import Merge
from streamq.cli.plugin._readme import (
    capabilities_table,
    driver_tables,
    settings_table,
    table,
    with_tables,
)
from streamq.devserver import DevServer
from streamq.temporal.generic._schema import stream_schema
from streamq.testing import _catalogue as kit
from streamq.testing import _contract_page as contract_page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCHEMA = DOCS / "streamq-stream.schema.json"


def hooks() -> str:
    """Return the hooks that a harness may supply, and their purposes."""
    return table(
        ("hook", "what it does", "what its checks prove", "mandatory for"),
        (
            (
                f"`{hook.signature}`",
                _markdown(hook.does),
                _markdown(hook.proves),
                ", ".join(f"`{flag}`" for flag in hook.mandatory_for),
            )
            for hook in kit.hooks()
        ),
    )


def _markdown(text: str) -> str:
    """Return a docstring's text with its literals and references as Markdown has them."""
    return re.sub(r":\w+:`~?([^`]+)`|``([^`]+)``", lambda m: f"`{m[1] or m[2]}`", text)


def checks() -> str:
    """Return every check of the suite, by group."""
    parts = []
    for group, found in itertools.groupby(kit.catalogue(), lambda check: check.group):
        rows = (
            (
                f"`{check.name.removeprefix('test_')}`",
                _markdown(check.guarantee),
                ", ".join(f"`{flag}`" for flag in check.conditions.capabilities),
                ", ".join(f"`{hook}`" for hook in check.conditions.hooks),
            )
            for check in found
        )
        heads = ("check", "why anyone cares", "requires", "needs")
        parts.append(f"### {group.capitalize()}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def mapping() -> str:
    """Return what each event of a stream, and what a workflow tells, becomes in A2A."""
    cases: list[tuple[str, list[Event] | Told]] = [
        ("chunk, text, the first", [_chunk(1, Encoding.TEXT, b"Hel")]),
        ("chunk, text, a later one", [_chunk(2, Encoding.TEXT, b"lo")]),
        ("chunk, JSON", [_chunk(3, Encoding.JSON, b'{"rows": 2}')]),
        ("chunk, bytes", [_chunk(4, Encoding.BYTES, b"\x00\xff")]),
        ("`StatusNote`", [_value(5, StatusNote("searching"))]),
        (
            "`ArtifactNote`, with the next chunk",
            [_value(6, ArtifactNote(name="Poem")), _chunk(7, Encoding.TEXT, b"!")],
        ),
        ("`FileReference`", [_value(8, FileReference("https://example.org/a.png", "image/png"))]),
        ("`FileContent`", [_value(13, FileContent.of(b"1,2", "text/csv", "a.csv"))]),
        ("reset, with the next chunk", [Reset(14, 2), _chunk(15, Encoding.TEXT, b"Hello")]),
        ("seal END", [Seal(16, 2, SealState.END)]),
        ("seal ERROR, CANCELLED", [Seal(17, 2, SealState.ERROR)]),
        ("`task.status(text)`", Told(status=_status("WORKING"))),
        ("`task.ask(text)`", Told(status=_status("INPUT_REQUIRED"))),
        (
            "`task.send_artifact(id, text)`",
            Told(parts=[{"text": "text"}], artifact={"artifactId": "id", "name": "id"}),
        ),
        ("the client's next message", Told(message={"messageId": "1", "role": "ROLE_USER"})),
        ("the block is left", Told(status=status_json("COMPLETED", ""), is_last=True)),
        ("an exception fails the workflow", Told(status=_status("FAILED"), is_last=True)),
        ("the workflow is cancelled", Told(status=status_json("CANCELED", ""), is_last=True)),
        ("`task.reply(text)`", Told(reply={"messageId": "1", "role": "ROLE_AGENT"})),
    ]
    merge, rows = Merge("task", "context"), []
    merge.restore({"status": _status("WORKING")})
    for number, (case, given) in enumerate(cases, 1):
        if isinstance(given, Told):
            merge.is_ended = False
            entries = list(merge.tell(number, given))
        else:
            entries = [entry for each in given for entry in merge.take("default", each, now="")]
        rows.append((case, ", then ".join(_shown(each) for each in entries) or "nothing"))
    gone = "status update FAILED, with a text that names no reason"
    rows.append(("the workflow ends without a word (`ProducerGoneError`)", gone))
    return table(("in streamq", "in A2A"), rows)


def _chunk(offset: int, encoding: Encoding, data: bytes) -> Event:
    return Chunk(offset, 1, offset - 1, encoding, data)


def _value(offset: int, value: AgentValue) -> Event:
    return _chunk(offset, Encoding.JSON, json.dumps(dataclasses.asdict(value)).encode())


def _status(state: State) -> dict[str, Any]:
    return status_json(state, "", {"parts": [{"text": "text"}]})


def _shown(entry: dict[str, Any]) -> str:
    """Return the event of an entry of a task's log, for people."""
    if "artifact" in entry:
        part = json.dumps(entry["artifact"]["parts"][0])
        flags = f"append={str(bool(entry.get('append'))).lower()}"
        name = entry["artifact"].get("name", "default")
        flags += f', name "{name}"' if name != "default" else ""
        flags += ", lastChunk=true" if entry.get("last") else ""
        return f"artifact update, {flags}, part `{part}`"
    if "status" in entry:
        message = " with a message" if "message" in entry["status"] else ""
        return f"status update {state_of(entry['status'])}{message}"
    return "a message instead of a task" if "reply" in entry else "a message in the history"


def generators() -> dict[str, Callable[[], str]]:
    """Return the table for each marker."""
    drivers = [load_driver(name) for name in installed_drivers()]
    return {
        **driver_tables(),
        "capabilities": partial(capabilities_table, drivers),
        "settings": partial(settings_table, Settings),
        "hooks": hooks,
        "checks": checks,
        "contract": contract_page.contract,
        "duties": contract_page.duties,
        "errors": contract_page.errors,
        "parts": contract_page.parts,
        "harness": contract_page.harness,
        "mapping": mapping,
        "server": partial(contract_page.described_class, DevServer),
    }


def documents() -> Iterable[tuple[Path, str]]:
    """Return every document and what it should be."""
    tables = generators()
    for path in sorted([*DOCS.glob("*.md"), *ROOT.glob("plugins/*/README.md")]):
        yield path, with_tables(path.read_text(), tables)
    yield SCHEMA, json.dumps(stream_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Renew or check every document."""
    check = "--check" in sys.argv
    stale = []
    for path, new in documents():
        if not path.exists() or path.read_text() != new:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    outcome = "is out of date: run python docs/generate.py" if check else "renewed"
    for name in stale:
        print(name, outcome)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
