"""Values that are neither text, bytes nor JSON: decoded, or shown as what they are."""

from __future__ import annotations

import base64
import json
import math
import pickle
import subprocess
from typing import Any, NoReturn

import pytest
from google.protobuf.struct_pb2 import Struct
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from tests.programs import program

from streamq import Chunk, Encoding, SerializationError, Settings, open_reader, open_writer
from streamq.temporal._serializer import PayloadSerializer

from .converters import CONVERTER, Opaque, Point
from .served import AsStored, Serve, Served, WatchedQueue

CONVERTER_NAME = "tests.gateway.converters:CONVERTER"


async def write(queue: WatchedQueue, *chunks: tuple[Encoding, bytes]) -> None:
    async with open_writer("s", queue=queue, serializer=AsStored()) as writer:
        for chunk in chunks:
            await writer.send_chunk(chunk)


def payload(encoding: str, data: bytes, **metadata: bytes) -> tuple[Encoding, bytes]:
    stored = Payload(metadata={"encoding": encoding.encode(), **metadata}, data=data)
    return Encoding.PAYLOAD, stored.SerializeToString()


def encoded(value: object) -> tuple[Encoding, bytes]:
    return PayloadSerializer(CONVERTER.payload_converter).encode(value)


async def shown(served: Served) -> list[dict[str, Any]]:
    """Return the values of a stream as strict JSON, without what all events have."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    events = await served.collect("s")
    assert events[-1].event == "end"
    found = [json.loads(event.data, parse_constant=refuse) for event in events[:-1]]
    common = ("event", "offset", "attempt", "seq")
    return [{key: each[key] for key in each if key not in common} for each in found]


STRUCT = Struct()
STRUCT.update({"a": 1})
ODD: list[tuple[tuple[Encoding, bytes], dict[str, Any]]] = [
    (encoded({"loss": math.nan}), {"value": {"loss": "NaN"}, "nonfinite": ["/loss"]}),
    (encoded([math.inf, -math.inf, "NaN"]), {"value": ["Infinity", "-Infinity", "NaN"]}),
    (encoded({"a/b": {"~": [1, math.nan]}}), {"nonfinite": ["/a~1b/~0/1"]}),
    ((Encoding.JSON, b'{"x":1e999}'), {"value": {"x": "Infinity"}, "nonfinite": ["/x"]}),
    ((Encoding.JSON, b"NaN"), {"value": "NaN", "nonfinite": [""]}),
    ((Encoding.JSON, b"{"), {"undecoded": {"encoding": "json", "size_bytes": 1}, "base64": "ew=="}),
    ((Encoding.JSON, b"[" * 400 + b"]" * 400), {"undecoded": {"encoding": "json"}}),
    ((Encoding.JSON, b"[" * 99_999 + b"]" * 99_999), {"undecoded": {"size_bytes": 199_998}}),
    ((Encoding.JSON, b"1" * 5_000), {"undecoded": {"encoding": "json", "size_bytes": 5_000}}),
    ((Encoding.JSON, str(2**64).encode()), {"value": 2**64}),
    ((Encoding.JSON, b'"\\ud83d \\ud83d\\ude00"'), {"value": "\ufffd 😀"}),
    ((Encoding.JSON, b'{"a":"\xed\xa0\xbd"}'), {"value": {"a": "\ufffd"}}),  # not escaped
    ((Encoding.JSON, b'"\xed\xa0\xbd\xed\xb8\x80\xed\x95\x9c"'), {"value": "😀한"}),
    ((Encoding.JSON, b'"\xed\xff"'), {"undecoded": {"encoding": "json", "size_bytes": 4}}),
    ((Encoding.TEXT, b"a\xff"), {"undecoded": {"encoding": "text"}, "base64": "Yf8="}),
    ((Encoding.PAYLOAD, b"\xff"), {"undecoded": {"encoding": "unknown"}, "payload": "/w=="}),
    (payload("binary/null", b"", more=b"x"), {"value": None}),
    (payload("binary/plain", b"\xff", more=b"x"), {"base64": "/w=="}),
    (payload("json/protobuf", b'{"a":1}', messageType=b"no.Such"), {"value": {"a": 1}}),
    (payload("json/plain", b"{", more=b"x"), {"undecoded": {"encoding": "json/plain"}}),
    (payload("binary/encrypted", b"?" * 9), {"undecoded": {"encoding": "binary/encrypted"}}),
    (payload("no\nsuch\x1b", b""), {"undecoded": {"encoding": "no\\x0asuch\\x1b"}}),
    (
        payload("binary/protobuf", b"?", messageType=b"no.Such"),
        {"undecoded": {"encoding": "binary/protobuf", "message_type": "no.Such", "size_bytes": 1}},
    ),
]


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if key == "undecoded":
            assert found[key].items() >= value.items()
            assert found[key]["reason"]
        else:
            assert found[key] == value


@pytest.mark.parametrize("converter", ["", CONVERTER_NAME])
async def test_every_value_has_a_form_and_blocks_nothing(
    start: Serve, queue: WatchedQueue, converter: str
) -> None:
    """The page is there to show what an activity does, whatever it sends."""
    await write(queue, *(chunk for chunk, _ in ODD))
    served = await start()
    served.gateway.settings = served.gateway.settings.model_copy(
        update={"data_converter": converter}
    )
    for found, (_, expected) in zip(await shown(served), ODD, strict=True):
        check(found, expected)


async def test_the_configured_converter_decodes_payloads(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """It is what wrote them; the same setting serves the gateway, the commands and readers."""
    values = [Point(1.5, math.nan), STRUCT, Opaque(), 1j, "text", b"\xff", None]
    await write(queue, *map(encoded, values))
    converting = settings.model_copy(update={"data_converter": CONVERTER_NAME})
    served = await start()
    served.gateway.settings = converting
    point, struct, opaque, number, *rest = await shown(served)
    assert point == {"value": {"x": 1.5, "y": "NaN"}, "nonfinite": ["/y"]}
    assert struct == {"value": {"a": 1.0}}
    assert opaque["undecoded"]["encoding"] == "binary/pickle"
    stored = Payload.FromString(base64.b64decode(opaque["payload"]))
    assert stored.metadata["encoding"] == b"binary/pickle"
    assert number == {"value": "1j"}
    assert rest == [{"value": "text"}, {"base64": "/w=="}, {"value": None}]

    async with open_reader("s", queue=queue, settings=converting) as reader:
        read = [event.value async for event in reader if isinstance(event, Chunk)]
    assert read[0].x == 1.5
    assert (read[1], read[3]) == (STRUCT, 1j)
    assert read[4:] == ["text", b"\xff", None]

    async with open_reader("s", queue=queue, settings=settings) as reader:
        chunks = [event async for event in reader if isinstance(event, Chunk)]
    assert chunks[1].value == {"a": 1.0}
    with pytest.raises(SerializationError, match=r"'binary/pickle'.*STREAMQ_DATA_CONVERTER"):
        _ = chunks[0].value


async def test_a_number_that_is_too_long_to_write_blocks_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """Python refuses to write it, and each client of the stream would get an error for ever."""
    await write(queue, payload("binary/pickle", pickle.dumps({"n": [10**5_000]})), encoded("next"))
    served = await start()
    served.gateway.settings = served.gateway.settings.model_copy(
        update={"data_converter": CONVERTER_NAME}
    )
    long, after = await shown(served)
    check(long, {"undecoded": {"encoding": "binary/pickle"}})
    assert after == {"value": "next"}


async def test_a_type_is_asked_of_the_configured_converter(
    queue: WatchedQueue, settings: Settings
) -> None:
    """``value_type`` and the setting are used together; NaN stays the number that it was."""
    await write(queue, encoded({"x": math.nan, "y": 1}), encoded({"x": 2, "y": 3}))
    for name in ("", "temporalio.converter:DataConverter.default", CONVERTER_NAME):
        chosen = settings.model_copy(update={"data_converter": name})
        async with open_reader("s", queue=queue, settings=chosen, value_type=Point) as reader:
            first, second = await reader.collect()
        assert math.isnan(first.x)
        assert second == Point(2, 3)


async def test_halves_of_a_character_are_joined(start: Serve, queue: WatchedQueue) -> None:
    """Models stream UTF-16: an emoji comes as two chunks, and neither can be stored as UTF-8."""
    sent: list[Any] = [
        "a\ud83d",
        "\ude00b",
        "\ud83d",
        {"x": "\ud83d", "\ude00": "\ud83d\ude00"},
        "\ude00",
    ]
    sent += ["\ude00 \ud83d!", b"\xf0\x9f", b"\x98\x80", "end\ud83d"]
    async with open_writer("s", queue=queue) as writer:
        for value in sent:
            await writer.send_chunk(value)
    found = [each.get("value", each.get("base64")) for each in await shown(await start())]
    assert found == [
        *("a", "😀b", "", {"x": "\ufffd", "\ufffd": "😀"}, "😀", "\ufffd \ufffd!"),
        *("8J8=", "mIA=", "end", "\ufffd"),
    ]


@pytest.mark.parametrize(
    "name", ["temporalio.converter:DataConverter.default", "pydantic", CONVERTER_NAME]
)
async def test_halves_are_joined_for_every_converter(queue: WatchedQueue, name: str) -> None:
    """An activity's stream has its client's converter; Pydantic's refuses half a character."""
    converter = {"pydantic": pydantic_data_converter, CONVERTER_NAME: CONVERTER}.get(
        name, DataConverter.default
    )
    serializer: PayloadSerializer[Any] = PayloadSerializer(
        converter.payload_converter, is_transparent=converter is not CONVERTER
    )
    async with open_writer("s", queue=queue, serializer=serializer) as writer:
        for value in ("a\ud83d", "\ude00b", {"x": ["\ud83d", "\ud83d\ude00"]}, "c"):
            await writer.send_chunk(value)
    async with open_reader("s", queue=queue, serializer=serializer) as reader:
        assert await reader.collect() == ["a", "😀b", {"x": ["\ufffd", "😀"]}, "c"]


async def test_texts_of_an_ending_may_have_half_a_character(
    start: Serve, queue: WatchedQueue
) -> None:
    """Reasons and errors are cut, or come from a model."""
    writer = await open_writer("s", queue=queue, producer="\ud83d", headers={"a": "\ude00"})
    await writer.cancel("stop \ud83d")
    await writer.aclose()
    (end,) = await (await start()).collect("s")
    assert end.json()["message"] == "stop \ufffd"


async def test_node_reads_every_event(start: Serve, queue: WatchedQueue) -> None:
    """NaN is no JSON: it stopped every JavaScript client at that event."""
    node = program("node", package="nodejs")
    await write(queue, *(chunk for chunk, _ in ODD))
    raw = await (await start()).raw("s")
    script = (
        "let n = 0; for (const line of require('fs').readFileSync(0, 'utf8').split('\\n'))"
        " if (line.startsWith('data: ')) { JSON.parse(line.slice(6)); n++; } console.log(n)"
    )
    done = subprocess.run(  # noqa: ASYNC221 - short
        [node, "-e", script], input=raw, capture_output=True, check=True, timeout=60
    )
    assert int(done.stdout) == len(ODD) + 1
