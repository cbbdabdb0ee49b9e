"""Declares an agent: its card, and what a message starts.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from a2a.types.a2a_pb2 import AgentCard, AgentExtension, AgentInterface, Message
from temporalio.common import RetryPolicy

from streamq._errors import ConfigurationError
from streamq.a2a._extension import EVENT_IDS
from streamq.a2a.worker._workflow import AGENT_WORKFLOW

_EVENT_IDS_DESCRIPTION = (
    "Events of server-sent streams have ids; SubscribeToTask continues after Last-Event-ID."
)


def _text_argument(message: Message) -> Sequence[Any]:
    return ["\n".join(part.text for part in message.parts if part.HasField("text"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent that runs on Temporal.

    Either ``activity`` or ``workflow`` says what a message starts.

    Attributes:
        card: How the agent presents itself. Without interfaces in it, those at ``url`` are added.
        task_queue: Task queue of its workers, which have ``StreamqPlugin`` and ``AgentPlugin``.
        activity: A streaming activity, or its name; ``streamq.AgentTask`` runs it.
        workflow: A workflow that makes an ``AgentTask`` of its input, or its name.
        arguments: Returns the activity's arguments for a message; by default its text.
        name: Name of the agent in Temporal; by default that of the card. Agents of one namespace
            have different names. Another name hides the tasks that there were.
        url: Where clients reach the HTTP interfaces.
        grpc_url: Where clients reach the gRPC interface, as ``host:port``; empty without one.
        can_reply: Whether the workflow may answer with a message instead of a task. The first event
            of a stream then waits for the workflow.
        push_notifications: Whether clients may have the events of a task posted to an address.
        heartbeat_seconds: How soon a worker that died is noticed.
        start_to_close_seconds: How long one attempt of the activity may take.
        max_attempts: How often the activity is tried; 0 is without limit.
        execution_seconds: How long a task may take in all, also while it waits for its client;
            0 is without limit.
        retry_policy: How often, and after which pauses, the workflow is started again if it fails;
            by default it is not. Attempts of the activity are apart from that.
        message_ids_are_unique: Whether two first messages of one caller with one id are the same
            message, also if they name no context. If they name one, they always are.
        wait_seconds: How long a blocking request waits for the task; then it gets the task as it
            is.
        extended_card: What callers that are known get in place of the card, if they ask for it.
        extensions: Extensions of A2A that the agent has, beside those in its card. The workflow
            learns which of them its client has activated (``TaskInput.extensions``). A client that
            does not activate one that is required is refused.

    Raises:
        ConfigurationError: There is neither an activity nor a workflow, or both; a time or the task
            queue is not usable; or an extension is declared twice or without a URI.
    """

    card: AgentCard
    task_queue: str
    activity: Callable[..., Any] | str = ""
    workflow: type | str = ""
    arguments: Callable[[Message], Sequence[Any]] = _text_argument
    name: str = ""
    url: str = "http://127.0.0.1:8000"
    grpc_url: str = ""
    can_reply: bool = False
    push_notifications: bool = True
    heartbeat_seconds: float = 10.0
    start_to_close_seconds: float = 3_600.0
    max_attempts: int = 0
    execution_seconds: float = 0.0
    wait_seconds: float = 600.0
    retry_policy: RetryPolicy | None = None
    message_ids_are_unique: bool = False
    extended_card: AgentCard | None = None
    extensions: Sequence[AgentExtension] = ()

    def __post_init__(self) -> None:
        if bool(self.activity) == bool(self.workflow):
            raise ConfigurationError(
                "an agent runs either an activity or a workflow: pass activity= or workflow="
            )
        _ = self.activity_name, self.workflow_name  # raise here, and not at the first message
        if not self.task_queue or not self.agent_name:
            raise ConfigurationError("an agent needs a task_queue, and a name or a card with one")
        for field in ("heartbeat_seconds", "start_to_close_seconds", "wait_seconds"):
            if not getattr(self, field) > 0:
                raise ConfigurationError(f"{field} must be above 0, not {getattr(self, field)}")
        uris = [each.uri for each in self.all_extensions()]
        for uri in uris:
            if not uri or "," in uri or uris.count(uri) > 1:
                raise ConfigurationError(
                    f"an agent declares the extension {uri!r}; each has a URI of its own, without "
                    "a comma"
                )

    @property
    def agent_name(self) -> str:
        """Name of the agent in Temporal."""
        return self.name or self.card.name

    @property
    def activity_name(self) -> str:
        """Name of the activity; empty if a workflow of its own runs."""
        if isinstance(self.activity, str):
            return self.activity
        definition = getattr(self.activity, "__temporal_activity_definition", None)
        name = getattr(definition, "name", None)
        if not name:
            raise ConfigurationError(
                f"activity={self.activity!r} is not an activity: decorate it by "
                "@streaming_activity, or pass a workflow as workflow="
            )
        return str(name)

    @property
    def workflow_name(self) -> str:
        """Name of the workflow that a message starts."""
        if not self.workflow:
            return AGENT_WORKFLOW
        if isinstance(self.workflow, str):
            return self.workflow
        definition = getattr(self.workflow, "__temporal_workflow_definition", None)
        name = getattr(definition, "name", None)
        if not name:
            raise ConfigurationError(
                f"workflow={self.workflow!r} is not a workflow: decorate a class by "
                "@workflow.defn, or pass an activity as activity="
            )
        return str(name)

    def all_extensions(self) -> list[AgentExtension]:
        """Return the extensions of the agent."""
        return [*self.card.capabilities.extensions, *self.extensions]

    def served_card(self, own: AgentCard | None = None) -> AgentCard:
        """Return the card that clients get, with what the server can do.

        Args:
            own: The card as its author has written it; by default the public one.
        """
        card = AgentCard()
        card.CopyFrom(own or self.card)
        del card.capabilities.extensions[:]
        card.capabilities.extensions.extend(self.all_extensions())
        card.capabilities.streaming = True
        card.capabilities.push_notifications = self.push_notifications
        card.capabilities.extended_agent_card = self.extended_card is not None
        if all(each.uri != EVENT_IDS for each in card.capabilities.extensions):
            card.capabilities.extensions.append(
                AgentExtension(uri=EVENT_IDS, description=_EVENT_IDS_DESCRIPTION)
            )
        if not card.supported_interfaces:
            url = self.url.rstrip("/")
            card.supported_interfaces.append(_interface(f"{url}/", "JSONRPC"))
            card.supported_interfaces.append(_interface(url, "HTTP+JSON"))
            if self.grpc_url:
                card.supported_interfaces.append(_interface(self.grpc_url, "GRPC"))
        return card


def _interface(url: str, binding: str) -> AgentInterface:
    return AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
