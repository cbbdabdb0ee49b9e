"""Runs a proxy in front of the emulator that evaluates IAM policies, which the emulator does not.

It tells callers apart by the access key that signed a request, derives action and resource from the
request, and refuses what no statement of the caller's policy allows. It knows what the policies of
this project use: ``Allow`` and ``Deny``, ``Action`` and ``Resource`` with wildcards. It refuses
a policy with anything else, and a request that it does not know.

The rules are those of the IAM and S3 user guides: an explicit denial wins, everything else has to
be allowed; a missing object is reported as missing only to those who may list the bucket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web
from yarl import URL

Need: TypeAlias = tuple[str, str]
"""An action and the resource that it is requested on."""

ACCOUNT = "000000000000"

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/([^/]+)/([^/]+)/aws4_request")
_DELETED = re.compile(r"<Key>([^<]*)</Key>")
_ELEMENTS = {"Effect", "Action", "Resource"}
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "expect", "connection"}
_LARGEST_BODY = 64 * 2**20


class Policy:
    """An identity policy.

    Args:
        text: Its JSON.

    Raises:
        ValueError: It has an element that is not known here.
    """

    def __init__(self, text: str) -> None:
        self._statements: list[tuple[str, list[str], list[str]]] = []
        for each in json.loads(text)["Statement"]:
            if each.keys() != _ELEMENTS or each["Effect"] not in ("Allow", "Deny"):
                raise ValueError(f"not known here: {each}")
            self._statements.append(
                (each["Effect"], _listed(each["Action"]), _listed(each["Resource"]))
            )

    def allows(self, need: Need) -> bool:
        """Whether it permits an action on a resource."""
        effects = {
            effect
            for effect, actions, resources in self._statements
            if any(fnmatchcase(need[0].lower(), each.lower()) for each in actions)
            and any(fnmatchcase(need[1], each) for each in resources)
        }
        return effects == {"Allow"}


@dataclass
class PolicyProxy:
    """Forwards requests that are permitted.

    Attributes:
        server: URL of the emulator.
        policies: Policy of each access key.
        used: What was permitted.
    """

    server: str
    policies: dict[str, Policy] = field(default_factory=dict)
    used: set[Need] = field(default_factory=set)
    url: str = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        signed = _CREDENTIAL.search(request.headers.get("Authorization", ""))
        if signed is None or signed[1] not in self.policies:
            return _refusal("s3", "InvalidAccessKeyId", "no such key")
        policy, region, service = self.policies[signed[1]], signed[2], signed[3]
        needs = list(_needs(service, region, request, body))
        for need in needs:
            if not policy.allows(need):
                return _refusal(service, "AccessDenied", f"not authorized to perform: {need[0]}")
        self.used.update(needs)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _OWN_HEADERS
        }
        url = URL(self.server + request.raw_path, encoded=True)
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            content = await answer.read()
            hides = answer.status == web.HTTPNotFound.status_code and service == "s3"
            if hides and not policy.allows(("s3:ListBucket", _bucket_arn(request))):
                return _refusal(service, "AccessDenied", "not authorized")
            passed = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in _OWN_HEADERS or request.method == "HEAD"
            }
            return web.Response(status=answer.status, body=content, headers=passed)


def _needs(service: str, region: str, request: web.Request, body: bytes) -> Iterator[Need]:
    """Return the actions of a request, each with its resource.

    Raises:
        NotImplementedError: The request is not known here.
    """
    if service == "sqs":
        yield from _needs_of_sqs(region, request.headers["X-Amz-Target"], json.loads(body))
    elif service == "sns":
        values = parse_qs(body.decode())
        (name,) = values["Action"]
        place = values.get("TopicArn") or values.get("SubscriptionArn") or ["*"]
        yield f"sns:{name.removesuffix('Batch')}", place[0]
    elif service == "s3":
        yield from _needs_of_s3(request, body)
    else:
        raise NotImplementedError(f"{service}: {request.method} {request.raw_path}")


def _needs_of_sqs(region: str, target: str, params: Mapping[str, Any]) -> Iterator[Need]:
    operation = target.rpartition(".")[2]
    name = params.get("QueueName") or params.get("QueueUrl", "").rpartition("/")[2]
    # SQS has no resource for the listing of all queues.
    resource = f"arn:aws:sqs:{region}:{ACCOUNT}:{name}" if operation != "ListQueues" else "*"
    yield f"sqs:{operation.removesuffix('Batch')}", resource
    if operation == "CreateQueue" and params.get("tags"):
        yield "sqs:TagQueue", resource


def _needs_of_s3(request: web.Request, body: bytes) -> Iterator[Need]:
    bucket, query, method = _bucket_arn(request), request.query, request.method
    key = request.path.lstrip("/").partition("/")[2]
    if copied := request.headers.get("x-amz-copy-source"):
        yield "s3:GetObject", f"arn:aws:s3:::{copied.lstrip('/')}"
    if not key:
        yield from _needs_of_bucket(request, bucket, body)
    elif method in ("GET", "HEAD"):
        yield "s3:GetObject", f"{bucket}/{key}"
    elif method in ("PUT", "POST"):
        yield "s3:PutObject", f"{bucket}/{key}"
    elif method == "DELETE":
        name = "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        yield f"s3:{name}", f"{bucket}/{key}"
    else:
        raise NotImplementedError(f"{method} {request.raw_path}")


def _needs_of_bucket(request: web.Request, bucket: str, body: bytes) -> Iterator[Need]:
    query, method = request.query, request.method
    if bucket.endswith(":::"):
        yield "s3:ListAllMyBuckets", "*"
    elif method == "POST" and "delete" in query:
        for key in _DELETED.findall(body.decode()):
            yield "s3:DeleteObject", f"{bucket}/{key}"
    elif method == "GET" and "versioning" in query:
        yield "s3:GetBucketVersioning", bucket
    elif method == "GET" and "uploads" in query:
        yield "s3:ListBucketMultipartUploads", bucket
    elif method == "GET" and "policy" in query:
        yield "s3:GetBucketPolicy", bucket
    elif method == "GET" and "lifecycle" in query:
        yield "s3:GetLifecycleConfiguration", bucket
    elif method == "HEAD" or (method == "GET" and query.keys() <= _LISTING):
        yield "s3:ListBucket", bucket
    elif method == "DELETE" and not query:
        yield "s3:DeleteBucket", bucket
    else:
        raise NotImplementedError(f"{method} {request.raw_path}")


_LISTING = {
    *("list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after"),
    *("encoding-type", "fetch-owner"),
}


def _bucket_arn(request: web.Request) -> str:
    return f"arn:aws:s3:::{request.path.lstrip('/').partition('/')[0]}"


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _refusal(service: str, code: str, message: str) -> web.Response:
    if service == "sqs":
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message})
        return web.Response(status=403, text=body, content_type="application/x-amz-json-1.0")
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if service == "sns":
        error = f"<ErrorResponse>{error}</ErrorResponse>"
    return web.Response(status=403, text=error, content_type="text/xml")
