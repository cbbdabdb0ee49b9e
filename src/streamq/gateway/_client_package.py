"""Packs the JavaScript client as npm installs it: ``npm install https://GATEWAY/client.tgz``.

It has the files that the gateway serves, as they are, and a ``package.json``.

Design: docs/design/javascript-client.md.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from importlib import metadata

NAME = "streamq-client"
"""Name to import the client by; no registry has it, the address is the source."""


def client_package(files: Mapping[str, bytes]) -> bytes:
    """Return a tarball, the same for the same files and version.

    Args:
        files: The client's files by their names in the package.
    """
    described = {
        "name": NAME,
        "version": _version(),
        "description": "Reads streams of a streamq gateway",
        "license": "MIT",
        "type": "module",
        "sideEffects": False,
        "types": "./client.d.ts",
        "exports": {".": {"types": "./client.d.ts", "default": "./client.js"}},
    }
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        package = json.dumps(described, indent=2).encode()
        for name, content in {"package.json": package, **files}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _version() -> str:
    """Return the version in three numbers, the form that npm takes."""
    try:
        found = re.match(r"\d+\.\d+\.\d+", metadata.version("streamq"))
    except metadata.PackageNotFoundError:  # in a frozen application
        found = None
    return found[0] if found else "0.0.0"
