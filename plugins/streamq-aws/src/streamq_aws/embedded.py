"""Starts an emulator of S3, SNS and SQS in a subprocess, for demos and tests.

The emulator is the package ``ministack`` (``pip install streamq-aws[embedded]``).

Design: docs/design/aws.md.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import botocore.session

from streamq import ConfigurationError
from streamq.devserver import DevServer

REGION = "us-east-1"
_KEY = "streamq"
_NO_PROFILE = {"profile": (None, None, None, None)}  # ignores AWS_PROFILE
_MAIN = "from ministack.app import main; main()"


class Ministack(DevServer):
    """An AWS on the loopback interface. S3 objects are on disk, everything else is in memory.

    Args:
        port: Port to listen on; 0 takes a free one.
        data_dir: Directory for objects; by default a temporary one.
    """

    backend = "ministack"

    def __init__(self, *, port: int = 0, data_dir: str | os.PathLike[str] | None = None) -> None:
        # Stopping takes it long, and killing it loses nothing.
        super().__init__(port=port, data_dir=data_dir, stop_seconds=0.2)

    @property
    def url(self) -> str:
        """The value for AWS_ENDPOINT_URL."""
        return f"http://{self.address}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead AWS clients to it, with credentials that it accepts."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    @contextlib.contextmanager
    def client(self, service: str, region: str = REGION) -> Iterator[Any]:
        """Yield a blocking client of a service, to set the emulator up or to inspect it."""
        client = botocore.session.Session(_NO_PROFILE).create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
        )
        try:
            yield client
        finally:
            client.close()

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line.

        Raises:
            ConfigurationError: The package is not installed.
        """
        if importlib.util.find_spec("ministack") is None:
            raise ConfigurationError(
                "no emulator of AWS to run; pip install 'streamq-aws[embedded]', or set "
                "AWS_ENDPOINT_URL",
                backend=self.backend,
            )
        options = {
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "AWS_SECRET_ACCESS_KEY": _KEY,  # it verifies presigned URLs with this
            "LOG_LEVEL": "ERROR",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(data_dir / "s3"),
            "TMPDIR": str(data_dir),
        }
        return [
            *(sys.executable, "-c"),
            f"import json, os; os.environ.update(json.loads({json.dumps(options)!r})); {_MAIN}",
        ]

    def answers(self, log: Path) -> bool:
        """Whether its health page answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
