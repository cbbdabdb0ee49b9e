"""Completes the card of an agent: what the server knows better than its author.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from a2a.types.a2a_pb2 import (
    AgentCard,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)

from streamq.gateway._authority import Authority

from ._agent import Agent

_SCHEME = "bearer"


def public_card(agent: Agent, authority: Authority) -> AgentCard:
    """Return the card that everybody gets.

    Args:
        agent: The agent.
        authority: Says which tokens are accepted.
    """
    card = agent.served_card()
    _add_security(card, authority)
    return card


def _add_security(card: AgentCard, authority: Authority) -> None:
    """Say which tokens are needed; what the author says of other schemes stays."""
    if not authority.needs_tokens:
        return
    if _SCHEME not in card.security_schemes:
        names = ", ".join(sorted(each.issuer for each in authority.issuers))
        scheme = HTTPAuthSecurityScheme(
            scheme="Bearer",
            bearer_format="JWT",
            description=f"An access token (RFC 9068) of one of these issuers: {names}",
        )
        card.security_schemes[_SCHEME].CopyFrom(SecurityScheme(http_auth_security_scheme=scheme))
    if not card.security_requirements:
        card.security_requirements.append(SecurityRequirement(schemes={_SCHEME: StringList()}))
        if authority.permitted_without_token:
            card.security_requirements.append(SecurityRequirement())
