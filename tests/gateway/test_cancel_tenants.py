"""Names the tenants that may cancel workflows, without a setting and with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamq import ConfigurationError, load_settings
from streamq.access import configured_issuers, new_secret
from streamq.gateway._cancel_tenants import cancelling_tenants

_ISSUER = """
[[issuer]]
issuer = "{name}"
audience = "a"
jwks_url = "https://login.example/{name}"
algorithms = ["RS256"]
{tenant}
"""


@pytest.mark.parametrize(
    ("given", "issuers", "tenants"),
    [
        ({}, [], {"default"}),
        ({"tenant": "acme"}, [], {"acme"}),
        ({"gateway_trust_tenants": True}, [], set()),
        ({"gateway_trust_tenants": True, "gateway_cancel_tenants": "a"}, [], {"a"}),
        ({"token_key": new_secret()}, [], set()),
        ({"token_key": new_secret(), "gateway_cancel_tenants": "a, b"}, [], {"a", "b"}),
        ({"tenant": "acme"}, ['tenant = "acme"'], {"acme"}),
        ({"tenant": "acme"}, ['tenant_claim = "t"\ntenants = ["acme"]'], {"acme"}),
        ({}, ['tenant = "acme"'], set()),
        ({"tenant": "acme"}, ['tenant = "acme"', 'tenant = "b"'], set()),
        ({"tenant": "acme"}, ['tenant_claim = "t"\ntenants = ["acme", "b"]'], set()),
        ({"tenant": "acme"}, ['tenant_claim = "t"\ntenants = ["*"]'], set()),
        ({"tenant": "acme", "token_key": new_secret()}, ['tenant = "acme"'], set()),
    ],
)
def test_nobody_cancels_where_requests_may_name_several_tenants(
    given: dict[str, object], issuers: list[str], tenants: set[str], tmp_path: Path
) -> None:
    """Whoever has a key of one's own makes tokens for every tenant."""
    if issuers:
        path = tmp_path / "issuers.toml"
        texts = (_ISSUER.format(name=f"i{i}", tenant=text) for i, text in enumerate(issuers))
        path.write_text("".join(texts))
        given = {**given, "token_issuers": path}
    settings = load_settings(backend="memory", **given)
    assert cancelling_tenants(settings, configured_issuers(settings)) == tenants


def test_what_is_no_tenant_is_refused() -> None:
    """A mistyped name would permit nothing, and nobody would know why."""
    with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_CANCEL_TENANTS"):
        load_settings(gateway_cancel_tenants="acme; globex")
