"""``STREAMQ_DATA_CONVERTER``, with which the command reads encrypted streams."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec
from tests.gateway.converters import CONVERTER, Opaque, Point

from streamq import open_writer
from streamq.driver import ChunkQueue
from streamq.temporal._serializer import PayloadCodecOfRecords, PayloadSerializer

from .command import Cli, one_error

PICKLING = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.gateway.converters import CONVERTER
"""
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
    """Users keep it there, and other command line tools find it there."""
    (cli.directory / "enc.py").write_text(MODULE)
    async with open_writer("s", queue=queue, codec=PayloadCodecOfRecords(Turned())) as stream:
        await stream.send_chunk("words")
    script = str(Path(sys.executable).with_name("streamq"))
    process = cli.start("tail", "s", env={VARIABLE: "enc:converter"}, program=[script])
    assert cli.finish(process).out == "words"


def test_errors_in_a_converter_are_reported(cli: Cli) -> None:
    """The error has to name the part that is mistyped."""
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
    """Otherwise the first reader of an encrypted stream would get the error."""
    async with open_writer("s", queue=queue):
        pass
    commands = [("serve", "--port", "0"), ("tail", "s")]
    for finished in cli.run_each(commands, env={VARIABLE: "enc"}):
        assert ":name is missing" in one_error(finished)


async def test_tail_shows_every_value_and_goes_on(cli: Cli, queue: ChunkQueue) -> None:
    """What is neither text, bytes nor JSON came out as raw protobuf, or ended the command."""
    (cli.directory / "pkl.py").write_text(PICKLING)
    serializer: PayloadSerializer[object] = PayloadSerializer(CONVERTER.payload_converter)
    async with open_writer("s", queue=queue, serializer=serializer) as stream:
        for value in ({"loss": math.nan}, Point(1.5, 2.5), Opaque(), b"raw\n", "last"):
            await stream.send_chunk(value)
    commands = [("tail", "s"), ("tail", "s", "--json")]
    text, lines = cli.run_each(commands, env={VARIABLE: "pkl:CONVERTER"})
    loss, point, opaque, *rest = text.out.splitlines()
    assert (loss, point) == ('{"loss": "NaN"}', '{"x": 1.5, "y": 2.5}')
    assert json.loads(opaque)["undecoded"]["encoding"] == "binary/pickle"
    assert rest[0] == "raw"
    assert rest[1].strip('"') == "last"
    events = [json.loads(line) for line in lines.out.splitlines()]
    assert [event.get("value") for event in events[:2]] == [{"loss": "NaN"}, {"x": 1.5, "y": 2.5}]
    assert events[2]["undecoded"]["size_bytes"] > 0
    assert events[-1]["event"] == "end"

    (without,) = cli.run_each([("tail", "s", "--json")])
    undecoded = json.loads(without.out.splitlines()[1])["undecoded"]
    assert "STREAMQ_DATA_CONVERTER" in undecoded["reason"]
