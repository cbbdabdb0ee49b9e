"""Sets, finds, lists and deletes where a task's push notifications go.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re

from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    SendMessageConfiguration,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from a2a.utils.task import validate_page_size

from streamq.a2a._push_config import PushConfig
from streamq.a2a._push_receivers import ReceiverRefusedError, Receivers
from streamq.access import Action

from ._directory import TaskPlace
from ._fold import TaskFold
from ._lookup import Lookup
from ._push_directory import TooManyConfigsError

_USUAL_PAGE = 50
_ID = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_VALUE = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


async def create_push_config(
    lookup: Lookup, params: TaskPushNotificationConfig, context: ServerCallContext
) -> TaskPushNotificationConfig:
    """Send a task's events to a receiver from now on; the end of a task that has ended.

    Raises:
        PushNotificationNotSupportedError: The agent sends none.
        TaskNotFoundError: There is no task that the caller may know of.
        AccessError: The caller may not write to it.
        InvalidParamsError: The config cannot be used, or there are too many.
        StreamqError: Temporal or the backend does not answer.
    """
    _check_supported(lookup)
    place, fold, cursor = await lookup.task(params.task_id, params.tenant, context, Action.WRITE)
    config = await _checked(lookup, params)
    await add_push(lookup, place, fold, cursor, config)
    return _message(config, place.task_id)


async def get_push_config(
    lookup: Lookup, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
) -> TaskPushNotificationConfig:
    """Return a config.

    Raises:
        PushNotificationNotSupportedError: The agent sends none.
        TaskNotFoundError: There is no task that the caller may know of, or no such config.
        AccessError: The caller may not write to it.
        StreamqError: Temporal or the backend does not answer.
    """
    _check_supported(lookup)
    place, _, _ = await lookup.task(params.task_id, params.tenant, context, Action.WRITE)
    for each in await (await lookup.push()).configs(place):
        if each.id == params.id:
            return _message(each, place.task_id)
    raise TaskNotFoundError(f"Task {place.task_id} has no push notification config of this id")


async def list_push_configs(
    lookup: Lookup, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
) -> ListTaskPushNotificationConfigsResponse:
    """Return a page of a task's configs, in the order of their ids.

    Raises:
        PushNotificationNotSupportedError: The agent sends none.
        TaskNotFoundError: There is no task that the caller may know of.
        AccessError: The caller may not write to it.
        InvalidParamsError: The page cannot be had.
        StreamqError: Temporal or the backend does not answer.
    """
    _check_supported(lookup)
    if params.page_size:
        validate_page_size(params.page_size)
    after = _after(params.page_token)
    place, _, _ = await lookup.task(params.task_id, params.tenant, context, Action.WRITE)
    found = sorted(await (await lookup.push()).configs(place), key=lambda each: each.id)
    rest = [each for each in found if each.id > after]
    page = rest[: params.page_size or _USUAL_PAGE]
    return ListTaskPushNotificationConfigsResponse(
        configs=[_message(each, place.task_id) for each in page],
        next_page_token=_token(page[-1].id) if len(page) < len(rest) else "",
    )


async def delete_push_config(
    lookup: Lookup, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
) -> None:
    """Send nothing more to a receiver. Returns when nothing is on its way; idempotent.

    Raises:
        PushNotificationNotSupportedError: The agent sends none.
        TaskNotFoundError: There is no task that the caller may know of.
        AccessError: The caller may not write to it.
        StreamqError: Temporal or the backend does not answer.
    """
    _check_supported(lookup)
    place, _, _ = await lookup.task(params.task_id, params.tenant, context, Action.WRITE)
    await (await lookup.push()).delete(place, params.id)


async def wanted_push(lookup: Lookup, configuration: SendMessageConfiguration) -> PushConfig | None:
    """Return the config that comes with a message; ``None`` without one.

    Raises:
        PushNotificationNotSupportedError: There is one, and the agent sends none.
        InvalidParamsError: It cannot be used, or the receiver is not permitted.
    """
    if not configuration.HasField("task_push_notification_config"):
        return None
    return await _checked(lookup, configuration.task_push_notification_config)


async def add_push(
    lookup: Lookup, place: TaskPlace, fold: TaskFold, cursor: str, config: PushConfig
) -> None:
    """Send a task's events to a receiver from now on.

    Raises:
        InvalidParamsError: There are too many configs.
        StreamqError: Temporal does not answer.
    """
    # Something is sent in any case: of a task that has ended, its end.
    after, start = (fold.generation - 1, "") if fold.is_terminal else (fold.generation, cursor)
    wanted = dataclasses.replace(config, cursor=start, after=max(after, 0))
    try:
        await (await lookup.push()).set(place, wanted)
    except TooManyConfigsError as exc:
        raise InvalidParamsError(str(exc)) from None


async def _checked(lookup: Lookup, params: TaskPushNotificationConfig) -> PushConfig:
    _check_supported(lookup)
    auth = params.authentication
    for name, value, form in (
        ("id", params.id, _ID),
        ("token", params.token, _VALUE),
        ("authentication scheme", auth.scheme, _SCHEME),
        ("authentication credentials", auth.credentials, _VALUE),
    ):
        if value and not form.fullmatch(value):
            raise InvalidParamsError(
                f"The {name} of the push notification config has characters that cannot be "
                "sent, or too many"
            )
    if auth.credentials and not auth.scheme:
        raise InvalidParamsError("The credentials of the push notification config need a scheme")
    settings = (await lookup.push()).settings
    try:
        await Receivers(settings).check(params.url)
    except ReceiverRefusedError as exc:
        raise InvalidParamsError(str(exc)) from None
    return PushConfig(
        id=params.id or hashlib.sha256(params.url.encode()).hexdigest()[:32],
        url=params.url,
        token=params.token,
        scheme=auth.scheme,
        credentials=auth.credentials,
        tenant=params.tenant,
        issuer=lookup.agent.url,
    )


def _check_supported(lookup: Lookup) -> None:
    if not lookup.agent.push_notifications:
        raise PushNotificationNotSupportedError


def _message(config: PushConfig, task_id: str) -> TaskPushNotificationConfig:
    found = TaskPushNotificationConfig(
        tenant=config.tenant, id=config.id, task_id=task_id, url=config.url, token=config.token
    )
    if config.scheme:
        found.authentication.CopyFrom(
            AuthenticationInfo(scheme=config.scheme, credentials=config.credentials)
        )
    return found


def _token(config_id: str) -> str:
    return base64.urlsafe_b64encode(config_id.encode()).decode()


def _after(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidParamsError("The page token is none of this agent's") from None
