"""Runs programs of ``@a2a-js/sdk``, the client of A2A in JavaScript, unchanged from npm."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.apache_kafka._jars import cache_directory
from tests.gateway.scripts import Script
from tests.programs import program

_PACKAGES = Path(__file__).with_name("javascript")
_NPM_SECONDS = 300
_BEGINNING = """
import { randomUUID } from "node:crypto";
import { ClientFactory, ClientFactoryOptions } from "@a2a-js/sdk/client";
import { GrpcTransportFactory } from "@a2a-js/sdk/client/grpc";

const given = JSON.parse(process.argv[2]);
const say = (what) => console.log(JSON.stringify(what));

const message = (text, fields = {}) => ({
  messageId: randomUUID(), role: 1, contextId: "", taskId: "", metadata: undefined,
  parts: [{
    content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "",
  }],
  extensions: [], referenceTaskIds: [], ...fields,
});
const request = (text, { atOnce = false, ...fields } = {}) => ({
  tenant: "", metadata: undefined, message: message(text, fields),
  configuration: {
    acceptedOutputModes: [], taskPushNotificationConfig: undefined, returnImmediately: atOnce,
  },
});
const texts = (artifact) => artifact.parts.map((part) => part.content.value).join("");
/** What a client has of the artifact after some events. */
const textOf = (events, id = "default") => {
  let found = "";
  for (const { payload: { $case, value } } of events) {
    if ($case === "task") {
      for (const each of value.artifacts) if (each.artifactId === id) found = texts(each);
    } else if ($case === "artifactUpdate" && value.artifact.artifactId === id) {
      found = (value.append ? found : "") + texts(value.artifact);
    }
  }
  return found;
};
const state = ({ payload: { value } }) => value.status.state;
const kinds = (events) => events.map(({ payload: { $case } }) => $case);

const factory = new ClientFactory({
  ...ClientFactoryOptions.default,
  transports: [...ClientFactoryOptions.default.transports, new GrpcTransportFactory()],
  preferredTransports: [given.transport],
});
const clients = await Promise.all(given.urls.map((url) => factory.createFromUrl(url)));
const [client, other] = clients;
"""


@functools.cache
def _modules() -> Path:
    """Return the folder with the packages; the first time npm downloads 3 MB."""
    npm = program("npm", package="npm")
    lock = (_PACKAGES / "package-lock.json").read_bytes()
    name = hashlib.sha256(lock).hexdigest()[:12]
    cached = cache_directory() / f"a2a-js-{name}"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix="a2a-js-") as folder:
            fresh = shutil.copytree(_PACKAGES, Path(folder, "packages"))
            subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=fresh,
                check=True,
                timeout=_NPM_SECONDS,
                stdin=subprocess.DEVNULL,
            )
            with contextlib.suppress(OSError):  # another process of the suite was quicker
                fresh.rename(cached)
    return cached / "node_modules"


@asynccontextmanager
async def running_client(
    folder: Path, transport: str, urls: list[str], body: str, **given: Any
) -> AsyncIterator[Script]:
    """Run a program until the context ends.

    Args:
        folder: Where to write it.
        transport: The protocol binding that it takes of the card.
        urls: Where the agent is; its ``client`` is for the first, its ``other`` for the second.
        body: The program; it has ``client``, ``other``, ``given``, ``say``, ``request``,
            ``textOf``, ``state`` and ``kinds``.
        given: Further values of ``given``.
    """
    text = f"{_BEGINNING}{body}\nprocess.exit(0);\n"
    values = json.dumps({"transport": transport, "urls": urls, **given})
    async with node_process(folder, text, values) as process:
        yield Script(process)


@asynccontextmanager
async def node_process(
    folder: Path, text: str, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program that may import the packages, until the context ends; a minute at most."""
    node = program("node", package="nodejs")
    modules = await asyncio.to_thread(_modules)
    if not (link := folder / "node_modules").exists():
        link.symlink_to(modules)
    file = folder / "program.mjs"
    file.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(node, str(file), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(folder: Path, transport: str, urls: list[str], body: str, **given: Any) -> list[Any]:
    """Run a program to its end, and return what it said."""
    async with running_client(folder, transport, urls, body, **given) as script:
        return await script.rest()
