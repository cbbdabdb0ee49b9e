"""Shared parts of the AWS backends of streamq: settings, clients, errors, an emulator for demos.

Design: docs/design/aws.md.
"""

from ._clients import AwsClients
from ._clock import clock_finding
from ._errors import aws_errors, error_code, http_status, to_streamq
from ._settings import AwsSettings

__all__ = [
    "AwsClients",
    "AwsSettings",
    "aws_errors",
    "clock_finding",
    "error_code",
    "http_status",
    "to_streamq",
]
