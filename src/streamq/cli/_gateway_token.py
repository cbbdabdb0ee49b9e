"""Gets the token for a gateway that a command reads from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.over_http._token import Token

from ._token_revoke import read_token

TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="With an address: file with the token, read again when that ends; - reads standard "
        "input.",
        show_default="STREAMQ_GATEWAY_TOKEN",
    ),
]
"""Option of the commands that read through a gateway."""


def gateway_token(file: Path | None, settings: Settings) -> Token | None:
    """Return the token that a command sends: that of a file, or of the settings.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if file is not None:
        token = read_token(file)  # reports at once that it cannot be read
        return token if str(file) == "-" else partial(read_token, file)
    given = settings.gateway_token
    return None if given is None else given.get_secret_value()


def refuse_token_file(file: Path | None) -> None:
    """Refuse a file that nothing would read.

    Raises:
        ConfigurationError: There is one.
    """
    if file is not None:
        raise ConfigurationError(
            "--token-file is for the address of a stream on a gateway, such as "
            "https://streams.example.org/events/NAME"
        )
