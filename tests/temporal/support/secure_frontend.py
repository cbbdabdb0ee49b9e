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
from temporalio.api.workflowservice import v1 as workflowservice

_THREADS = 64  # polls of workers occupy one each
_FOR_EVERYBODY = ("GetSystemInfo",)
_OWN_METADATA = ("user-agent", "authorization")


@dataclass
class SecureFrontend:
    """A running frontend.

    Attributes:
        address: Where it listens.
        calls: Methods that were called, with the namespace's header if there is one.
        api_key: Key that it accepts; may be replaced.
        refused_calls: Methods for which we have no permission.
        permissions: What each key may do, as the claims of a token say it: ``NAMESPACE:write``. A
            call is refused without that permission for the namespace of its request, or if its
            request has none; replaces ``api_key``.
        refusal: What it answers to every call instead of passing it on; may be replaced.
    """

    address: str
    api_key: str | None
    calls: list[str] = field(default_factory=list)
    refusal: Refusal | None = None
    refused_calls: set[str] = field(default_factory=set)
    permissions: dict[str, list[str]] = field(default_factory=dict)

    def permits(self, authorization: str, method: str, request: bytes) -> bool:
        """Whether the permissions of a key allow a call."""
        if method in _FOR_EVERYBODY:
            return True
        kind = getattr(workflowservice, f"{method}Request", None)
        if kind is None or "namespace" not in kind.DESCRIPTOR.fields_by_name:
            return False
        permission = f"{kind.FromString(request).namespace}:write"
        return permission in self.permissions[authorization.removeprefix("Bearer ")]


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
            key, permissions = self._frontend.api_key, self._frontend.permissions
            given = metadata.get("authorization", "")
            accepted = [f"Bearer {each}" for each in (permissions or [key])]
            if (permissions or key is not None) and given not in accepted:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request unauthorized.")
            if self._frontend.refusal is not None:
                self._frontend.refusal.raise_in(context)
            method = details.method.rpartition("/")[2]
            if permissions and not self._frontend.permits(given, method, request):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "Request unauthorized.")
            if method in self._frontend.refused_calls:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such permission")
            self._frontend.calls.append(method)
            passed = [each for each in metadata.items() if each[0] not in _OWN_METADATA]
            call = self._upstream.unary_unary(details.method).future(
                request, timeout=context.time_remaining(), metadata=passed
            )
            # Otherwise the poll of a worker that has left would take the next task.
            context.add_callback(call.cancel)
            try:
                found: bytes = call.result()
            except grpc.FutureCancelledError:
                context.abort(grpc.StatusCode.CANCELLED, "the client has left")
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
