"""Checks that an answer comes from the service that was asked, and not from another server.

A captive portal, a proxy or a web server at the endpoint's address may answer with status 200. Such
an answer must not count as a stored record, or as a listing without streams.

Design: docs/design/aws.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from botocore.parsers import ResponseParserError

_SERVER_ERROR = 500  # those of load balancers are pages, too, and mean what they say
_DELETION, _DELETED = "DeleteObjects", b"DeleteResult"
_REQUEST_ID = "x-amz-request-id"  # of servers that send no tags
_OBJECTS = frozenset({"GetObject", "HeadObject"})
_ONE_OF = {
    "PutObject": ("ETag",),
    "CopyObject": ("CopyObjectResult",),
    "UploadPart": ("ETag",),
    "GetObject": ("ETag",),
    "HeadObject": ("ETag",),
    "CreateMultipartUpload": ("UploadId",),
    "CompleteMultipartUpload": ("ETag", "Key", "Location"),
    "ListObjectsV2": ("Name", "Contents", "KeyCount", "MaxKeys", "IsTruncated"),
    "CreateQueue": ("QueueUrl",),
    "GetQueueUrl": ("QueueUrl",),
    "GetQueueAttributes": ("Attributes",),
    "SendMessageBatch": ("Successful", "Failed"),
    "DeleteMessageBatch": ("Successful", "Failed"),
    "ChangeMessageVisibilityBatch": ("Successful", "Failed"),
    "PublishBatch": ("Successful", "Failed"),
    "Subscribe": ("SubscriptionArn",),
    "CreateTopic": ("TopicArn",),
    "GetTopicAttributes": ("Attributes",),
}
"""Fields of the answers of operations; each answer has at least one of them."""


class AnswerCheck:
    """Raises an error for each answer to a client that its service does not give.

    The error is a ``ResponseParserError``, as for other answers that cannot be understood.

    Args:
        leave: Called before the error is raised.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def watch(self, client: Any) -> None:
        """Check the answers to a client."""
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-parse.{service}", self._check_form)
        client.meta.events.register(f"after-call.{service}", self._check_content)

    def _check_form(self, operation_model: Any, response_dict: Any, **_: object) -> None:
        status = response_dict["status_code"]
        kind = str(response_dict["headers"].get("content-type", ""))
        is_object = status < 300 and operation_model.name in _OBJECTS  # which may be a page
        if status < _SERVER_ERROR and kind.startswith("text/html") and not is_object:
            self._refuse(operation_model.name, f"status {status}, {kind}")
        if operation_model.service_model.resolved_protocol == "json":
            body = response_dict["body"].strip()
            is_owed = status < 300 and operation_model.output_shape is not None
            if not body.startswith(b"{") if body else is_owed:
                self._refuse(operation_model.name, f"status {status}, no JSON object")
        is_deletion = operation_model.name == _DELETION and status < 300
        if is_deletion and _DELETED not in response_dict["body"]:
            self._refuse(operation_model.name, f"status {status}, no result")

    def _check_content(self, http_response: Any, parsed: Any, model: Any, **_: object) -> None:
        wanted = _ONE_OF.get(model.name, ())
        if http_response.status_code >= 300 or not wanted or any(each in parsed for each in wanted):
            return
        if model.name != "PutObject" or _REQUEST_ID not in http_response.headers:
            self._refuse(model.name, f"no {wanted[0]} in it")

    def _refuse(self, operation: str, seen: str) -> NoReturn:
        self._leave()
        raise ResponseParserError(
            f"the answer to {operation} is none of the service ({seen}): another server or a proxy "
            "answers at that address"
        )
