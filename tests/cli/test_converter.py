"""``STREAMQ_DATA_CONVERTER``: what the command needs to read encrypted streams."""

from __future__ import annotations

import sys
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from streamq import open_writer
from streamq.driver import ChunkQueue
from streamq.temporal._serializer import PayloadCodecOfRecords

from .command import Cli, one_error

VARIABLE = "STREAMQ_DATA_CONVERTER"
MODULE = """
import dataclasses
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

class Turned(PayloadCodec):
    async def encode(self, payloads):
        return [Payload(metadata=p.metadata, data=p.data[::-1]) for p in payloads]
    decode = encode

converter = dataclasses.replace(DataConverter.default, payload_codec=Turned())
number = 5
"""


class Turned(PayloadCodec):
    async def encode(self, payloads: object) -> list[Payload]:
        assert isinstance(payloads, list)
        return [Payload(metadata=each.metadata, data=each.data[::-1]) for each in payloads]

    decode = encode


async def test_a_file_in_this_directory_can_hold_the_converter(cli: Cli, queue: ChunkQueue) -> None:
    """That is where people keep it, and every other command line tool finds it there."""
    (cli.directory / "enc.py").write_text(MODULE)
    async with open_writer("s", queue=queue, codec=PayloadCodecOfRecords(Turned())) as stream:
        await stream.send_chunk("words")
    script = str(Path(sys.executable).with_name("streamq"))
    process = cli.start("tail", "s", env={VARIABLE: "enc:converter"}, program=[script])
    assert cli.finish(process).out == "words"


def test_what_is_wrong_with_a_converter_is_told(cli: Cli) -> None:
    """Whoever mistypes it must not have to guess which part of it is meant."""
    (cli.directory / "enc.py").write_text(MODULE)
    (cli.directory / "broken.py").write_text("1 / 0")
    (cli.directory / "needy.py").write_text("import not_installed")
    wrong = {
        "enc": ":name is missing",
        ":converter": "the module is missing",
        "encc:converter": "there is no module 'encc' in this directory",
        "enc:convertor": "has no 'convertor'; did you mean 'converter'?",
        "enc:number": "is of type int, not a DataConverter",
        "broken:x": "module 'broken' fails when it is imported: ZeroDivisionError: division",
        "needy:x": "ModuleNotFoundError: No module named 'not_installed'",
    }
    started = {value: cli.start("config", env={VARIABLE: value}) for value in wrong}
    for value, process in started.items():
        message = one_error(cli.finish(process))
        assert f"{VARIABLE}={value!r}" in message
        assert wrong[value] in message


async def test_a_wrong_converter_keeps_the_gateway_from_starting(
    cli: Cli, queue: ChunkQueue
) -> None:
    """Else the first reader of an encrypted stream is the one who finds out."""
    async with open_writer("s", queue=queue):
        pass
    commands = [("serve", "--port", "0"), ("tail", "s")]
    for finished in cli.run_each(commands, env={VARIABLE: "enc"}):
        assert ":name is missing" in one_error(finished)
