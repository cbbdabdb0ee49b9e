"""Puts TLS, client certificates and API keys in front of a development server, which has none.

A gRPC server that passes every call on, as bytes. From outside it looks like Temporal Cloud:
it presents a certificate, may demand one, and refuses calls without the right API key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # handshakes fail in these tests

import grpc
import trustme
from google.protobuf.message import Message
from temporalio.api.common.v1 import GrpcStatus

_THREADS = 64  # polls of workers occupy one each
_OWN_METADATA = ("user-agent", "authorization")


@dataclass
class SecureFrontend:
    """A running frontend.

    Attributes:
        address: Where it listens.
        calls: Methods that were called, with the namespace's header if there is one.
        api_key: Key that it accepts; may be replaced.
        refused_calls: Methods for which we have no permission.
        refusal: What it answers to every call instead of passing it on; may be replaced.
    """

    address: str
    api_key: str | None
    calls: list[str] = field(default_factory=list)
    refusal: Refusal | None = None
    refused_calls: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Refusal:
    """An answer of a server that does not serve us.

    Attributes:
        code: Status.
        message: Its text.
        detail: A message of Temporal's API that says more.
    """

    code: grpc.StatusCode
    message: str
    detail: Message | None = None

    def raise_in(self, context: Any) -> None:
        """End a call with it."""
        if self.detail is not None:
            status = GrpcStatus(code=self.code.value[0], message=self.message)
            status.details.add().Pack(self.detail)
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
        context.abort(self.code, self.message)


class _Forwarding(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, frontend: SecureFrontend, upstream: grpc.Channel) -> None:
        self._frontend = frontend
        self._upstream = upstream

    def service(self, details: Any) -> Any:
        def forward(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            key = self._frontend.api_key
            if key is not None and metadata.get("authorization") != f"Bearer {key}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request unauthorized.")
            if self._frontend.refusal is not None:
                self._frontend.refusal.raise_in(context)
            method = details.method.rpartition("/")[2]
            if method in self._frontend.refused_calls:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such permission")
            self._frontend.calls.append(method)
            passed = [each for each in metadata.items() if each[0] not in _OWN_METADATA]
            call = self._upstream.unary_unary(details.method)
            try:
                found: bytes = call(request, timeout=context.time_remaining(), metadata=passed)
            except grpc.RpcError as exc:
                context.set_trailing_metadata(
                    [each for each in exc.trailing_metadata() or () if each[0].startswith("grpc-")]
                )
                context.abort(exc.code(), exc.details())
            return found

        return grpc.unary_unary_rpc_method_handler(forward)


@contextmanager
def secure_frontend(
    upstream: str,
    certificate: trustme.LeafCert,
    *,
    client_ca: trustme.CA | None = None,
    api_key: str | None = None,
) -> Iterator[SecureFrontend]:
    """Run one.

    Args:
        upstream: Address of the development server.
        certificate: What it presents.
        client_ca: Demands a client certificate of this authority.
        api_key: Demands this API key.
    """
    with ThreadPoolExecutor(_THREADS) as threads, grpc.insecure_channel(upstream) as channel:
        server = grpc.server(threads)
        credentials = grpc.ssl_server_credentials(
            [(certificate.private_key_pem.bytes(), _chain(certificate))],
            root_certificates=client_ca.cert_pem.bytes() if client_ca else None,
            require_client_auth=client_ca is not None,
        )
        frontend = SecureFrontend("", api_key)
        server.add_generic_rpc_handlers((_Forwarding(frontend, channel),))
        frontend.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
        server.start()
        try:
            yield frontend
        finally:
            server.stop(None).wait()


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(each.bytes() for each in certificate.cert_chain_pems)


@dataclass(frozen=True)
class ClientFiles:
    """Files of a client: the authority that it trusts, its certificate and its key."""

    ca: Path
    cert: Path
    key: Path


def write_files(directory: Path, ca: trustme.CA, client: trustme.LeafCert) -> ClientFiles:
    """Write the files of a client."""
    directory.mkdir(parents=True, exist_ok=True)
    files = ClientFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    ca.cert_pem.write_to_path(files.ca)
    files.cert.write_bytes(_chain(client))
    client.private_key_pem.write_to_path(files.key)
    return files
