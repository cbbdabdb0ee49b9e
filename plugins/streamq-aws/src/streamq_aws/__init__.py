"""What the AWS backends of streamq share: settings, sessions, errors, an emulator for demos."""

from ._calls import Calls, together
from ._errors import aws_errors, error_code, http_status, to_streamq
from ._session import AwsClients
from ._settings import AwsSettings

__all__ = [
    "AwsClients",
    "AwsSettings",
    "Calls",
    "aws_errors",
    "error_code",
    "http_status",
    "to_streamq",
    "together",
]
