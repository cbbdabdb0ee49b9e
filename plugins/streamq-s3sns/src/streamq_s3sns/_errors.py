"""Turns errors of the AWS clients into streamq's, and builds the driver's own.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

from streamq.driver import BackendError, StreamqError
from streamq_aws import aws_errors, error_code, http_status

BACKEND = "s3sns"

_UNSUPPORTED = frozenset(
    {
        *("NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidDigest"),
        *("InvalidRequest", "InvalidArgument", "MalformedXML", "MalformedTrailerError"),
    }
)
_UNSUPPORTED_STATUS = frozenset({405, 501})


class ObjectNotFoundError(StreamqError):
    """The stream has no such object: it was removed, or never belonged to this stream."""

    code = "object_not_found"


def client_errors(about: str) -> aws_errors:
    """Return a context that turns every error of a client into one of streamq's.

    Args:
        about: The subject of the request, such as ``bucket logs``, for the message.
    """
    return aws_errors(BACKEND, about=about)


def is_unsupported(error: BackendError) -> bool:
    """Whether a server that is like S3 lacks the operation, or refuses one of its headers."""
    cause = error.__cause__ or error
    return error_code(cause) in _UNSUPPORTED or http_status(cause) in _UNSUPPORTED_STATUS


def foreign_object(where: str) -> BackendError:
    """Return the error for an object that has a segment's key and is no segment.

    Args:
        where: Address of the object.
    """
    return BackendError(
        f"{where} is not a segment of a stream; another program or a newer version of streamq "
        "writes under this prefix: set another STREAMQ_S3SNS_PREFIX, or upgrade",
        backend=BACKEND,
    )
