"""Completes the cards of an agent: what the server knows better than their author.

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

from streamq._settings import Settings
from streamq.gateway._authority import Authority

from ._agent import Agent
from ._card_signing import JWKS_PATH, CardSigner

_SCHEME = "bearer"


class Cards:
    """The cards of an agent as clients get them, signed where there is a key.

    Args:
        agent: The agent.
        authority: Says which tokens are accepted.
        settings: Have the key, if there is one.

    Raises:
        ConfigurationError: The key cannot be used.
    """

    def __init__(self, agent: Agent, authority: Authority, settings: Settings) -> None:
        signer = CardSigner.configured(settings)
        self.keys = [] if signer is None else signer.public_keys
        """The keys to verify the cards with, as JSON Web Keys; none if no card is signed."""
        self.public = agent.served_card()
        """The card that everybody gets."""
        self.extended = None
        """The card for callers that are known; ``None`` if there is none."""
        if agent.extended_card is not None:
            self.extended = agent.served_card(agent.extended_card)
        for card in filter(None, (self.public, self.extended)):
            _add_security(card, authority)
            if signer is not None:
                signer.sign(card, agent.url.rstrip("/") + JWKS_PATH)


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
