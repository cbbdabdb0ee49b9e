"""Sabotaged drivers with a false or unusable declaration."""

from __future__ import annotations

import dataclasses

from pydantic_settings import SettingsConfigDict

from streamq.driver import Finding, LatencyClass

from .server import CAPABILITIES, SabotagedSettings, SoundQueue, checks


class DeclaresMoreThanItsDriver(SoundQueue):
    """Is fenced, which the driver's table denies."""

    caught_by = checks("queue_declares_no_more_than_its_driver")

    promised = dataclasses.replace(CAPABILITIES, fenced=False)


class DeclaresLargerRecordsThanItsDriver(SoundQueue):
    """Takes larger records than the driver's table says."""

    caught_by = checks("queue_declares_no_more_than_its_driver")

    promised = dataclasses.replace(CAPABILITIES, max_record_bytes=2**19)


class DeclaresToBeQuickerThanItsDriver(SoundQueue):
    """Is in a quicker class than the driver's table says."""

    caught_by = checks("queue_declares_no_more_than_its_driver")

    promised = dataclasses.replace(CAPABILITIES, latency=LatencyClass.SECONDS)


class DeclaresHostsButNotProcesses(SoundQueue):
    """Declares that machines may share a stream, and processes may not."""

    caught_by = checks("declaration_is_usable")

    declared = promised = dataclasses.replace(CAPABILITIES, cross_process=False)


class DeclaresNumbersForFacts(SoundQueue):
    """Declares a number instead of a boolean."""

    caught_by = checks("declaration_is_usable")

    declared = promised = dataclasses.replace(CAPABILITIES, durable=1)  # type: ignore[arg-type]


class CallsItselfSomethingElse(SoundQueue):
    """Gives its queues another name than the driver's."""

    caught_by = checks("""
        declaration_is_usable driver_describes_itself unreachable_server_is_reported_at_open
        read_only_backend_is_reported refused_credentials_are_reported_without_the_secret
    """)

    name = "sabotage"


class HasStrangeSettings(SoundQueue):
    """Reads its settings from variables with another prefix."""

    caught_by = checks("driver_describes_itself")

    class StrangeSettings(SabotagedSettings):
        """Settings with a wrong prefix."""

        model_config = SettingsConfigDict(env_prefix="SABOTAGED_")

    settings_type = StrangeSettings


class FindsFaultsWithoutANextStep(SoundQueue):
    """Reports what is wrong, and not what to do."""

    caught_by = checks("examination_changes_nothing_and_names_each_next_step")

    findings = (Finding("disk", False, "it is nearly full"),)


class DeclaresMoreThanCanBeProved(SoundQueue):
    """Promises records of a gigabyte."""

    caught_by = checks("declaration_is_usable")

    declared = promised = dataclasses.replace(CAPABILITIES, max_record_bytes=2**30)
