"""Settings that are refused before anything is opened."""

from __future__ import annotations

import pytest

from streamq_s3sns import S3SnsSettings


def test_every_setting_is_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in S3SnsSettings.model_fields.values())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"prefix": "/a"}, {"prefix": "a/"}, {"prefix": "a//b"}, {"prefix": ""}),
        *({"topic_arn": "x"}, {"bucket": "b--use1-az4--x-s3"}),
    ],
)
def test_unusable_settings_are_refused(wrong: dict[str, str]) -> None:
    """A prefix with odd slashes is another directory than it looks like."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        S3SnsSettings(**{"bucket": "b", **wrong})  # type: ignore[arg-type]
