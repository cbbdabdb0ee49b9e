"""Signs cards, so that clients can tell who has written them.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from a2a.types.a2a_pb2 import AgentCard
from a2a.utils.signing import ProtectedHeader, create_agent_card_signer
from joserfc.jwk import Key, OctKey, OKPKey

from streamq._errors import ConfigurationError
from streamq._settings import Settings
from streamq.access._keys import algorithms_of, own_keys, read_file

JWKS_PATH = "/.well-known/jwks.json"
"""Where the keys are with which cards are verified."""

_FILE_ADVICE = "the name of a file belongs in STREAMQ_A2A_SIGNING_KEY_FILE"


class CardSigner:
    """Signs cards with each private key of a setting.

    With a further key that will replace the first one, clients that know only one of them verify
    the card; a public key is published, and signs nothing.

    Args:
        keys: The keys.
        where: Which setting has them, for messages.

    Raises:
        ConfigurationError: None of them can sign, or one is a secret.
    """

    def __init__(self, keys: Sequence[Key], where: str) -> None:
        pairs = [key for key in keys if not isinstance(key, OctKey)]
        if len(pairs) < len(keys):
            raise ConfigurationError(
                f"{where} is a secret, with which nobody else can verify a card: give a private "
                "key, RSA, EC or Ed25519 (`streamq token key FILE` makes one)"
            )
        self._keys = [key for key in pairs if key.is_private]
        if not self._keys:
            raise ConfigurationError(f"{where} has no private key, and a public one signs nothing")
        self.public_keys: list[dict[str, Any]] = [
            {**key.as_dict(private=False), "use": "sig", "alg": _algorithm(key)} for key in keys
        ]
        """The public keys, as JSON Web Keys."""

    @classmethod
    def configured(cls, settings: Settings) -> CardSigner | None:
        """Return the signer that settings give a key for; ``None`` without one.

        Raises:
            ConfigurationError: The key cannot be used.
        """
        key, path = settings.a2a_signing_key, settings.a2a_signing_key_file
        if key is not None and path is not None:
            raise ConfigurationError(
                "STREAMQ_A2A_SIGNING_KEY and STREAMQ_A2A_SIGNING_KEY_FILE exclude each other; give "
                "one of them"
            )
        if key is not None:
            where, contents = "STREAMQ_A2A_SIGNING_KEY", key.get_secret_value().encode()
        elif path is not None:
            where = f"the file {str(path)!r} (STREAMQ_A2A_SIGNING_KEY_FILE)"
            contents = read_file(path)
        else:
            return None
        return cls(own_keys(contents, where, file_advice=_FILE_ADVICE), where)

    def sign(self, card: AgentCard, jwks_url: str) -> None:
        """Add a signature of each key to a card, which then stays as it is.

        Args:
            card: The card.
            jwks_url: Where the keys to verify it with are.
        """
        for key in self._keys:
            header = ProtectedHeader(
                alg=_algorithm(key), typ="JOSE", kid=str(key.kid), jku=jwks_url
            )
            create_agent_card_signer(key.as_pem(private=True), header)(card)


def _algorithm(key: Key) -> str:
    """Return the algorithm that a key is used with; libraries know Ed25519 by its older name."""
    possible = algorithms_of(key)
    return possible[-1] if isinstance(key, OKPKey) else possible[0]
