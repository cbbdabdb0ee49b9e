"""Fixtures: an emulator that these tests start and stop, and an environment without an account."""

from __future__ import annotations

from aws_fixtures import authority_fixture, emulator_fixture, environment_fixture

aws = emulator_fixture()
authority = authority_fixture()
environment = environment_fixture()
