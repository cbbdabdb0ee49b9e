"""Says who may do what with which streams: rights, the tokens that carry them, and their issuers.

Needs the extra ``gateway`` (joserfc, httpx).

* ``_rights``: what a token permits. ``_claims``: how a token states it.
* ``_granting``: how an application's own code says it.
* ``_issuers``: who issues tokens, and for which tenants. ``_keys``, ``_remote_keys``: their keys.
* ``_verifying``, ``_minting``: verifies tokens, and makes them. ``_tickets``: for one connection.
* ``_revoking``, ``_revocation_log``, ``_revocations``: revokes tokens, in the backend, for all.

Design: docs/design/access.md.
"""

from ._claims import DETAIL_TYPE
from ._errors import InvalidTokenError, IssuerUnavailableError
from ._granting import Grant, permit
from ._issuers import Issuer, configured_issuers
from ._minting import DEFAULT_LIFETIME, mint_token, new_ed25519_key, new_secret
from ._revoking import revoke_subject, revoke_token
from ._rights import Action, Permission, Rights, StreamMatch
from ._tickets import TicketOffice
from ._verifying import TokenVerifier

__all__ = [
    "DEFAULT_LIFETIME",
    "DETAIL_TYPE",
    "Action",
    "Grant",
    "InvalidTokenError",
    "Issuer",
    "IssuerUnavailableError",
    "Permission",
    "Rights",
    "StreamMatch",
    "TicketOffice",
    "TokenVerifier",
    "configured_issuers",
    "mint_token",
    "new_ed25519_key",
    "new_secret",
    "permit",
    "revoke_subject",
    "revoke_token",
]
