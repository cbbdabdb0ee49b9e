"""Refuses a message that no task can take, before anything is started.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.types.a2a_pb2 import AgentCard, Message
from a2a.utils.errors import InvalidParamsError
from a2a.utils.input_mode_validator import validate_input_modes
from google.protobuf.json_format import MessageToDict, SerializeToJsonError

_LARGEST_MESSAGE = 500_000  # it goes into one payload of Temporal, as JSON, and in arguments
_LONGEST_ID = 1_000  # a context is in the memo of each of its workflows


def check_message(message: Message, card: AgentCard) -> None:
    """Refuse a message that is too large, has an empty part, or cannot be written as JSON.

    Args:
        message: The message.
        card: Says which media types the agent takes.

    Raises:
        InvalidParamsError: It is such a message.
        ContentTypeNotSupportedError: A part has another media type.
    """
    validate_input_modes(message, card)
    if (size := message.ByteSize()) > _LARGEST_MESSAGE:
        raise InvalidParamsError(
            f"The message has {size} bytes, and at most {_LARGEST_MESSAGE} are taken; send a "
            "large file as a part with a url"
        )
    for name, value in (("messageId", message.message_id), ("contextId", message.context_id)):
        if len(value) > _LONGEST_ID:
            raise InvalidParamsError(
                f"{name} has {len(value)} characters, and at most {_LONGEST_ID} are taken"
            )
    for number, part in enumerate(message.parts):
        if part.WhichOneof("content") is None:
            raise InvalidParamsError(
                f"parts[{number}] is empty: a part has one of text, data, raw and url"
            )
    try:
        MessageToDict(message)
    except (SerializeToJsonError, ValueError):
        raise InvalidParamsError(
            "The message has a number that JSON does not have: NaN or Infinity"
        ) from None
