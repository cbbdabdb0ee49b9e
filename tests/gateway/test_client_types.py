"""The declarations of the JavaScript client, in the strict mode of TypeScript."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

from tests.programs import missing, program

from .scripts import STATIC, said
from .served import Serve
from .test_client_browser import REACT_HOOK

USAGE = Path(__file__).with_name("client_usage.ts")
_REACT_TYPES = Path("/usr/share/nodejs/@types/react")
_HAS_REACT = _REACT_TYPES.exists()


async def test_applications_are_checked_by_the_declarations(tmp_path: Path) -> None:
    """An editor that knows the events finds the case that was forgotten, also in the hook."""
    compiler = program("tsc", package="node-typescript")
    if not _HAS_REACT:
        missing("there are no types of React; install Debian's node-react")
    options = {
        "strict": True,
        "noEmit": True,
        "checkJs": True,
        "exactOptionalPropertyTypes": True,
        "skipLibCheck": True,  # of React
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "node",
        "lib": ["es2022", "dom"],
        "types": [],
        "baseUrl": ".",
        "paths": {"react": [str(_REACT_TYPES)]},
    }
    configuration = {"compilerOptions": options, "files": [USAGE.name]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(configuration))
    for file in (USAGE, STATIC / "client.d.ts", REACT_HOOK):
        shutil.copy(file, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(compiler, "--project", str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, "")


async def test_the_declarations_name_what_there_is(tmp_path: Path) -> None:
    """What is declared and missing fails where nobody looks: in the user's browser."""
    declared = (STATIC / "client.d.ts").read_text()
    script = f"""
    const client = await import({json.dumps((STATIC / "client.js").as_uri())});
    say(Object.keys(client).sort());
    const members = (of) => Object.getOwnPropertyNames(of).filter((name) => name !== "constructor");
    say(members(Gateway.prototype).sort());
    const gateway = new Gateway("http://127.0.0.1:1");
    const view = gateway.view("name"), events = gateway.events(["name"]);
    say([...members(view), ...members(Object.getPrototypeOf(view))].sort());
    say(members(Object.getPrototypeOf(events)).sort());
    say(members(view.current).sort());
    """
    exported, gateway, view, subscription, snapshot = await said(tmp_path, script)
    assert exported == sorted(re.findall(r"^export (?:class|function) (\w+)", declared, re.M))
    assert gateway == sorted(set(_members(declared, "class Gateway ")))
    assert view == sorted(_members(declared, "interface StreamView"))
    assert subscription == sorted([*_members(declared, "interface Subscription"), "next"])
    assert snapshot == sorted(_members(declared, "interface View"))


def _members(declared: str, name: str) -> list[str]:
    body = declared.split(f"export {name}")[1].split("\n}\n")[0]
    found = re.findall(r"^  (?:readonly )?(\w+)(?=[(<:?])", body, re.M)
    return [each for each in found if each != "constructor"]


async def test_the_client_is_installed_from_the_gateway(start: Serve, tmp_path: Path) -> None:
    """Bundlers want a package; it has the files that are served, and their types."""
    served = await start()
    packed = (await served.get("/client.tgz")).content
    again = (await (await start()).get("/client.tgz")).content
    assert again == packed  # npm keeps a checksum
    folder = tmp_path / "node_modules"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
        archive.extractall(folder, filter="data")
    (folder / "package").rename(folder / "streamq-client")
    for name in names:
        content = (folder / "streamq-client" / name.removeprefix("package/")).read_bytes()
        path = name.removeprefix("package")
        if path != "/package.json":
            answer = await served.get(path)
            assert answer.content == content == (STATIC / path[1:]).read_bytes()
    script = """
    const { Gateway: Installed } = await import("streamq-client");
    say((await new Installed(given.url).list()).streams);
    """
    assert await said(tmp_path, script, url=served.server.url) == [[]]
