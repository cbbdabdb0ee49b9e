"""The evaluator of policies that tests of isolation rely on refuses what IAM refuses."""

from __future__ import annotations

import json

import pytest

from aws_policy_proxy import Policy

QUEUE = "arn:aws:sqs:eu-west-1:1:streamq-"


def policy(*statements: tuple[str, object, object]) -> Policy:
    """Return a policy of statements, each an effect, actions and resources."""
    found = [{"Effect": e, "Action": a, "Resource": r} for e, a, r in statements]
    return Policy(json.dumps({"Version": "2012-10-17", "Statement": found}))


@pytest.mark.parametrize(
    ("action", "resource", "is_allowed"),
    [
        ("sqs:SendMessage", f"{QUEUE}a-1", True),
        ("sqs:sendmessage", f"{QUEUE}a-1", True),
        ("sqs:SendMessage", f"{QUEUE}b-1", False),
        ("sqs:SendMessage", "*", False),
        ("sqs:DeleteQueue", f"{QUEUE}a-1", False),
        ("sqs:GetQueueUrl", f"{QUEUE}a-1", True),
        ("sqs:GetQueueUrl", f"{QUEUE}a-kept", False),
    ],
)
def test_only_what_is_allowed_and_not_denied_passes(
    action: str, resource: str, is_allowed: bool
) -> None:
    """An evaluator that lets everything pass would prove every policy."""
    evaluated = policy(
        ("Allow", ["sqs:SendMessage", "sqs:Get*"], f"{QUEUE}a-*"),
        ("Deny", "sqs:*", [f"{QUEUE}?-kept"]),
    )
    assert evaluated.allows((action, resource)) is is_allowed


def test_policy_with_conditions_is_refused() -> None:
    """A condition that was ignored would make a policy look wider or narrower than it is."""
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}
    with pytest.raises(ValueError, match="not known here"):
        Policy(json.dumps({"Statement": [statement]}))
