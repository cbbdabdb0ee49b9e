"""Decides for which tenants the gateway cancels what runs in its namespace of Temporal.

Workflows have no tenant. The name of a stream states a workflow, and whoever may write streams of
a tenant may give one of them the name of any workflow: neither shows whose the workflow is.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import Collection

from streamq._comma_lists import listed
from streamq._settings import Settings
from streamq.access import Issuer

from ._stopping import StopUnavailableError


def cancelling_tenants(
    settings: Settings, issuers: Collection[Issuer], *, is_one_of_many: bool = False
) -> frozenset[str]:
    """Return the tenants whose requests may cancel workflows of the namespace.

    They are those of ``STREAMQ_GATEWAY_CANCEL_TENANTS``. Without it, it is the gateway's own tenant
    where requests can name no other one, and else none.

    Args:
        settings: Those of the gateway.
        issuers: Whose tokens it accepts.
        is_one_of_many: Whether the application has named the tenant of this request, so that other
            requests may have other ones.
    """
    given = frozenset(listed(settings.gateway_cancel_tenants))
    if given:
        return given
    named = [frozenset((i.tenant,)) if i.tenant is not None else i.tenants for i in issuers]
    own = frozenset((settings.tenant,))
    is_only_one = not (settings.gateway_trust_tenants or is_one_of_many) and all(
        each == own for each in named
    )
    return own if is_only_one else frozenset()


def check_cancels_for(tenant: str, tenants: Collection[str]) -> None:
    """Check that the gateway cancels workflows for a tenant.

    Raises:
        StopUnavailableError: It does not.
    """
    if tenant in tenants:
        return
    raise StopUnavailableError(
        f"the gateway cancels nothing for tenant {tenant}: its requests may name several tenants, "
        "and workflows have none; if the workflows of its Temporal namespace are this tenant's, "
        f"set STREAMQ_GATEWAY_CANCEL_TENANTS={','.join(sorted({*tenants, tenant}))}"
    )
