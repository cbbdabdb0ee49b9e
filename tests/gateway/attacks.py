"""Lists what is tried against a gateway, and each answer, for the tests and for docs/tokens.md.

``python -m tests.gateway.attacks`` renews the table there. In paths and headers, ``<mine>`` and the
like stand for tokens and tickets, see :data:`tests.gateway.attack.PLACEHOLDERS`.
"""

from __future__ import annotations

from pathlib import Path

from tests.access.forgeries import FORGERIES

from .attack import (
    ABSENT,
    ADA,
    BAD,
    BY_APPLICATION,
    COOKIE,
    CROSS,
    CURSOR,
    DESCRIBES,
    FAILED,
    HOST,
    HTTPS,
    INVALID,
    LEFT_OUT,
    LINK,
    MINE,
    NO_ROUTE,
    NOTHING,
    ORIGIN,
    OWN_COOKIE,
    OWN_PAGE,
    REPORTED,
    REQUIRED,
    SCOPE,
    SITE,
    Attack,
    by_every_route,
    forgery,
)

_LONG = "x" * 2_000
_ID = "m1.AAAAAAAAAAAA"
_MANY = "&".join(f"stream={i}" for i in range(257))
_MINE_BODY = '{"streams": ["mine"]}'

ATTACKS: dict[str, list[Attack]] = {
    "Without a token": [
        Attack("read", "GET /events/mine", REQUIRED),
        Attack("read by the former route", "GET /streams/mine/events", REQUIRED),
        Attack("read below the tenant", "GET /t/default/events/mine", REQUIRED),
        Attack("read what is stored", "GET /story/mine", REQUIRED),
        Attack("read records", "GET /records/mine", REQUIRED),
        Attack("ask whose streams they are", "GET /records", REQUIRED),
        Attack("ask where a stream stands", "GET /streams/mine", REQUIRED),
        Attack("list", "GET /streams", REQUIRED),
        Attack("list a tenant", "GET /t/other/streams", REQUIRED),
        Attack("delete", "DELETE /streams/mine", REQUIRED),
        Attack("get a ticket", "POST /ticket/mine", REQUIRED),
        Attack("cancel", "POST /cancel/mine", REQUIRED),
        Attack("revoke", "POST /revocations", REQUIRED),
        Attack("begin a session", "POST /session", REQUIRED),
        Attack("token in the address, RFC 6750", "GET /events/mine?access_token=<mine>", REQUIRED),
        Attack("another scheme", "GET /events/mine", REQUIRED, {"Authorization": "Basic <mine>"}),
        Attack("no scheme", "GET /events/mine", REQUIRED, {"Authorization": "<mine>"}),
        Attack("an empty header", "GET /events/mine", REQUIRED, {"Authorization": ""}),
        Attack("the word alone", "GET /events/mine", REQUIRED, {"Authorization": "Bearer"}),
        Attack("quoted", "GET /events/mine", INVALID, {"Authorization": 'Bearer "<mine>"'}),
        Attack(
            "two tokens in a header",
            "GET /events/mine",
            INVALID,
            {"Authorization": "Bearer <mine>, Bearer <mine>"},
        ),
        Attack("token in another header", "GET /events/mine", REQUIRED, {"X-Token": "<mine>"}),
    ],
    "A token that nobody has issued, or not for this": [
        forgery(name) for name in FORGERIES if name not in ("empty", "line breaks")
    ],
    "Streams of others, which are not there": [
        *by_every_route("a stream of the same tenant", "theirs"),
        Attack("a name that goes on", "GET /events/mine2", ABSENT, MINE),
        Attack("a name that goes on, listed", "GET /streams?prefix=mine2", NOTHING, MINE),
        Attack("in capitals", "GET /events/MINE", ABSENT, MINE),
        Attack("a space at the end", "GET /events/mine%20", ABSENT, MINE),
        Attack("a NUL", "GET /events/mine%00", ABSENT, MINE),
        Attack("dots", "GET /events/mine%2F..%2Ftheirs", ABSENT, MINE),
        Attack("dots, encoded twice", "GET /events/mine%252F..%252Ftheirs", ABSENT, MINE),
        Attack("a slash in front", "GET /events/%2Fmine", ABSENT, MINE),
        Attack("not UTF-8", "GET /events/mine%ff", BAD, MINE),
        Attack("letters that look alike", "GET /events/m%D1%96ne", ABSENT, MINE),
        Attack("half of a character", "GET /events/mine%ED%A0%80", BAD, MINE),
        Attack("an endless name", f"GET /events/{'x' * 2_000}", BAD, MINE),
    ],
    "A tenant in the path that is not the token's": [
        *by_every_route("its stream", "theirs", "/t/other"),
        *by_every_route("its stream of a name of mine", "mine", "/t/other"),
        Attack("a list", "GET /t/other/streams", NOTHING, MINE),
        Attack("a list of a prefix", "GET /t/other/streams?prefix=mine", NOTHING, MINE),
        Attack(
            "a list of an endless prefix", f"GET /t/other/streams?prefix={_LONG}", NOTHING, MINE
        ),
        Attack("a list of a NUL", "GET /t/other/streams?prefix=%00", NOTHING, MINE),
        Attack(
            "a list of half a character", "GET /t/other/streams?prefix=%ED%A0%80", NOTHING, MINE
        ),
        Attack("an encoded letter", "GET /t/%6fther/events/mine", NO_ROUTE, MINE),
        Attack("an encoded letter of mine", "GET /t/%64efault/events/mine", NO_ROUTE, MINE),
        Attack("an encoded slash", "GET /t/other%2Fevents/mine", NO_ROUTE, MINE),
        Attack("an encoded route", "GET /t/other/%65vents/mine", NO_ROUTE, MINE),
        Attack("in capitals", "GET /t/DEFAULT/events/mine", ABSENT, MINE),
        Attack("dots", "GET /t/..%2Fother/events/mine", NO_ROUTE, MINE),
        Attack("a space", "GET /t/default%20/events/mine", NO_ROUTE, MINE),
        Attack("a name that no tenant has", "GET /t/de,fault/events/mine", BAD, MINE),
        Attack("no tenant", "GET /t//events/mine", NO_ROUTE, MINE),
        Attack("two tenants", "GET /t/default/t/other/events/mine", NO_ROUTE, MINE),
        Attack("in the name", "GET /events/other/mine", ABSENT, MINE),
        Attack("in the name, as a path", "GET /events/..%2Ft%2Fother%2Fmine", ABSENT, MINE),
        Attack("in a header", "GET /events/theirs", ABSENT, {**MINE, "X-Tenant": "other"}),
        Attack("as a parameter", "GET /events/theirs?tenant=other", BAD, MINE),
    ],
    "A position that no backend has returned": [
        Attack("a word", "GET /records/mine?after=x", CURSOR, MINE),
        Attack("a number too large", f"GET /records/mine?after={2**64}-0", CURSOR, MINE),
        Attack("negative", "GET /records/mine?after=-1--1", CURSOR, MINE),
        Attack("an endless one", f"GET /records/mine?after={_LONG}", CURSOR, MINE),
        Attack("a NUL", "GET /records/mine?after=%00", CURSOR, MINE),
        Attack("a line break", "GET /records/mine?after=1-1%0A", CURSOR, MINE),
        Attack("other digits", "GET /records/mine?after=%D9%A1-%D9%A1", CURSOR, MINE),
        Attack("a cursor", "GET /records/mine?after=AaZ8&follow=false", CURSOR, MINE),
        Attack("of a stream of others", "GET /records/theirs?after=1-1", ABSENT, MINE),
        Attack("more records than an answer has", "GET /records/mine?last=99999", BAD, MINE),
        Attack("less than none", "GET /records/mine?last=-1", BAD, MINE),
        Attack("another word for following", "GET /records/mine?follow=1", BAD, MINE),
    ],
    "A right that the token lacks": [
        Attack("delete", "DELETE /streams/mine", SCOPE, MINE),
        Attack("cancel", "POST /cancel/mine", SCOPE, MINE),
        Attack("revoke", "POST /revocations", SCOPE, MINE),
        Attack(
            "delete by another method's name",
            "POST /streams/mine",
            (405, "method_not_allowed"),
            {**MINE, "X-HTTP-Method-Override": "DELETE"},
        ),
        Attack("read with a token to describe", "GET /events/mine", SCOPE, DESCRIBES),
        Attack("the story with one", "GET /story/mine", SCOPE, DESCRIBES),
        Attack("records with one", "GET /records/mine", SCOPE, DESCRIBES),
        Attack("the newest records with one", "GET /records/mine?last=4", SCOPE, DESCRIBES),
        Attack("a ticket with one", "POST /ticket/mine", SCOPE, DESCRIBES),
        Attack("list with one", "GET /streams", SCOPE, DESCRIBES),
        Attack(
            "read with a token to cancel",
            "GET /events/mine",
            SCOPE,
            {"Authorization": "Bearer <cancels>"},
        ),
    ],
    "A cookie": [
        Attack(
            "of a page of another origin",
            "GET /events/mine",
            ORIGIN,
            {**COOKIE, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        ),
        Attack(
            "of a page without an origin", "GET /events/mine", ORIGIN, {**COOKIE, "Origin": "null"}
        ),
        Attack(
            "of an image or a script of another site", "GET /story/mine", SITE, {**COOKIE, **CROSS}
        ),
        Attack(
            "of another host of the same site",
            "GET /story/mine",
            SITE,
            {**COOKIE, **CROSS, "Sec-Fetch-Site": "same-site"},
        ),
        Attack("of a link from another site", "GET /events/mine", SITE, {**COOKIE, **LINK}),
        Attack(
            "of a frame of another site",
            "GET /events/mine",
            SITE,
            {**COOKIE, **LINK, "Sec-Fetch-Dest": "iframe"},
        ),
        Attack(
            "of another port of this machine",
            "GET /events/mine",
            INVALID,
            {**COOKIE, "Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        ),
        Attack(
            "of another port, of an old browser",
            "GET /events/mine",
            INVALID,
            {**COOKIE, "Origin": "http://127.0.0.1:1"},
        ),
        Attack(
            "of a client that does not say whose page asks", "GET /events/mine", INVALID, COOKIE
        ),
        Attack(
            "by a rebound name", "GET /events/mine", HOST, {**OWN_COOKIE, "Host": "evil.example"}
        ),
        Attack(
            "by a rebound name that claims this origin",
            "GET /events/mine",
            HOST,
            {**OWN_COOKIE, "Host": "evil.example", "Origin": "http://127.0.0.1"},
        ),
        Attack(
            "by a name below a rebound one",
            "GET /events/mine",
            HOST,
            {**OWN_COOKIE, "Host": "127.0.0.1.evil.example"},
        ),
        Attack("that deletes", "DELETE /streams/mine", INVALID, OWN_COOKIE),
        Attack("that cancels", "POST /cancel/mine", INVALID, OWN_COOKIE),
        Attack("that revokes", "POST /revocations", INVALID, OWN_COOKIE),
        Attack("that gets a ticket", "POST /ticket/mine", INVALID, OWN_COOKIE),
        Attack("that begins a session again", "POST /session", INVALID, OWN_COOKIE),
        Attack(
            "of an expired token",
            "GET /events/mine",
            INVALID,
            {"Cookie": "streamq=<expired>", **OWN_PAGE},
        ),
        Attack("that is none", "GET /events/mine", INVALID, {"Cookie": "streamq=x", **OWN_PAGE}),
        Attack("that is empty", "GET /events/mine", INVALID, {"Cookie": "streamq=", **OWN_PAGE}),
        Attack(
            "set a second time by a neighbour",
            "GET /events/mine",
            INVALID,
            {"Cookie": "streamq=<mine>; streamq=<mine>", **OWN_PAGE},
        ),
        Attack(
            "of a ticket", "GET /events/mine", INVALID, {"Cookie": "streamq=<ticket>", **OWN_PAGE}
        ),
        Attack(
            "beside a bad header",
            "GET /events/mine",
            INVALID,
            {**OWN_COOKIE, "Authorization": "Bearer x"},
        ),
        Attack("for a stream of others", "GET /events/theirs", ABSENT, OWN_COOKIE),
        Attack("for another tenant", "GET /t/other/events/mine", ABSENT, OWN_COOKIE),
        Attack(
            "of HTTPS, sent without",
            "GET /events/mine",
            REQUIRED,
            {"Cookie": "__Secure-streamq=<mine>", **OWN_PAGE},
        ),
        Attack("without HTTPS, sent by HTTPS", "GET /events/mine", REQUIRED, {**HTTPS, **COOKIE}),
        Attack(
            "without HTTPS, beyond this machine",
            "GET /events/mine",
            REQUIRED,
            {**OWN_COOKIE, "Host": "streams.example.org"},
        ),
        Attack(
            "set without HTTPS, beyond this machine",
            "POST /session",
            BAD,
            {**MINE, "Host": "streams.example.org"},
        ),
        Attack(
            "set by a page of another origin",
            "POST /session",
            ORIGIN,
            {**MINE, "Origin": "https://evil.example"},
        ),
        Attack(
            "removed by a page of another origin",
            "DELETE /session",
            ORIGIN,
            {**COOKIE, "Origin": "https://evil.example"},
        ),
        Attack(
            "set with an expired token",
            "POST /session",
            INVALID,
            {"Authorization": "Bearer <expired>"},
        ),
    ],
    "A ticket": [
        Attack("for another stream", "GET /events/theirs?ticket=<ticket>", ABSENT),
        Attack("for a stream below its own", "GET /events/mine%2F1?ticket=<ticket>", ABSENT),
        Attack("for another tenant", "GET /t/other/events/mine?ticket=<ticket>", ABSENT),
        Attack("for the story", "GET /story/mine?ticket=<ticket>", INVALID),
        Attack("for records", "GET /records/mine?ticket=<ticket>", INVALID),
        Attack("for the status", "GET /streams/mine?ticket=<ticket>", INVALID),
        Attack("for a list", "GET /streams?ticket=<ticket>", INVALID),
        Attack("that deletes", "DELETE /streams/mine?ticket=<ticket>", INVALID),
        Attack("that cancels", "POST /cancel/mine?ticket=<ticket>", INVALID),
        Attack("for another ticket", "POST /ticket/mine?ticket=<ticket>", INVALID),
        Attack("for a session", "POST /session?ticket=<ticket>", INVALID),
        Attack("as a token", "GET /events/mine", INVALID, {"Authorization": "Bearer <ticket>"}),
        Attack("that is a token", "GET /events/mine?ticket=<mine>", INVALID),
        Attack("that is old", "GET /events/mine?ticket=<old-ticket>", INVALID),
        Attack("of another secret", "GET /events/mine?ticket=<forged-ticket>", INVALID),
        Attack("that is none", "GET /events/mine?ticket=x", INVALID),
        Attack("that is empty", "GET /events/mine?ticket=", INVALID),
        Attack("twice", "GET /events/mine?ticket=<ticket>&ticket=<ticket>", INVALID),
        Attack("in an encoded parameter", "GET /events/theirs?%74icket=<ticket>", ABSENT),
        Attack(
            "beside a bad header",
            "GET /events/mine?ticket=<ticket>",
            INVALID,
            {"Authorization": "Bearer x"},
        ),
        Attack(
            "of a page of another origin",
            "GET /events/mine?ticket=<ticket>",
            ORIGIN,
            {"Origin": "https://evil.example"},
        ),
        Attack(
            "by a rebound name", "GET /events/mine?ticket=<ticket>", HOST, {"Host": "evil.example"}
        ),
    ],
    BY_APPLICATION: [
        *(
            each
            for each in [
                *by_every_route("a stream of others", "theirs", headers=ADA),
                *by_every_route("another tenant", "mine", "/t/other", headers=ADA),
            ]
            if "/ticket/" not in each.request
        ),
        Attack("a stream of others by somebody else", "GET /events/mine", ABSENT),
        Attack("a name that goes on", "GET /events/mine2", ABSENT, ADA),
        Attack("a list of others' streams", "GET /streams?prefix=theirs", NOTHING, ADA),
        Attack("a list of another tenant", "GET /t/other/streams", NOTHING, ADA),
        Attack("a list by somebody else", "GET /streams", SCOPE),
        Attack("which backend this is, by somebody else", "GET /records", SCOPE),
        Attack("many streams of others", "GET /events?stream=theirs&stream=mine2", ABSENT, ADA),
        Attack("the same by POST", "POST /events", ABSENT, ADA, '{"streams": ["theirs"]}'),
        Attack("many streams by somebody else", "POST /events", ABSENT, {}, _MINE_BODY),
        Attack(
            "others among many streams",
            "GET /events?stream=mine&stream=theirs&from=tail",
            REPORTED,
            ADA,
        ),
        Attack("many of another tenant", "GET /t/other/events?stream=mine", ABSENT, ADA),
        Attack("a prefix of others", "GET /events?prefix=theirs", LEFT_OUT, ADA),
        Attack("a prefix by somebody else", "GET /events?prefix=mine", SCOPE),
        Attack("a token that nobody verifies", "GET /events/theirs", ABSENT, {**ADA, **MINE}),
        Attack("delete", "DELETE /streams/mine", SCOPE, ADA),
        Attack("cancel", "POST /cancel/mine", SCOPE, ADA),
        Attack("a ticket", "POST /ticket/mine", REQUIRED, ADA),
        Attack("a session", "POST /session", (501, "sessions_off"), {**ADA, **MINE}),
        Attack("revoke", "POST /revocations", (501, "revocation_impossible"), ADA),
        Attack(
            "a page of another origin deletes",
            "DELETE /streams/mine",
            ORIGIN,
            {**ADA, **MINE, "Origin": "https://evil.example"},
        ),
        Attack("a rebound name", "GET /events/mine", HOST, {**ADA, "Host": "evil.example"}),
        Attack("the function fails", "GET /events/mine", FAILED, {"X-User": "trouble"}),
    ],
    "Many streams on one connection": [
        Attack("without a token", "GET /events?stream=mine", REQUIRED),
        Attack("without a token, by POST", "POST /events", REQUIRED, body=_MINE_BODY),
        Attack("without a token, a prefix", "GET /events?prefix=mine", REQUIRED),
        Attack("of others only", "GET /events?stream=theirs&stream=mine2", ABSENT, MINE),
        Attack("of others only, by POST", "POST /events", ABSENT, MINE, '{"streams": ["theirs"]}'),
        Attack(
            "of others among mine, which are at their end",
            "GET /events?stream=mine&stream=theirs&from=tail",
            REPORTED,
            MINE,
        ),
        Attack(
            "of others, with a place in them",
            "POST /events",
            ABSENT,
            MINE,
            '{"streams": ["theirs"], "after": {"theirs": "1"}}',
        ),
        Attack(
            "of others, with a place nobody has",
            f"GET /events?stream=theirs&after={_ID}",
            ABSENT,
            MINE,
        ),
        Attack("of another tenant", "GET /t/other/events?stream=mine", ABSENT, MINE),
        Attack("of another tenant, by POST", "POST /t/other/events", ABSENT, MINE, _MINE_BODY),
        Attack("of a tenant, encoded", "GET /t/%6fther/events?stream=mine", NO_ROUTE, MINE),
        Attack("a prefix of others", "GET /events?prefix=theirs", LEFT_OUT, MINE),
        Attack("a prefix of another tenant", "GET /t/other/events?prefix=mine", LEFT_OUT, MINE),
        Attack("a prefix of a NUL", "GET /events?prefix=%00", LEFT_OUT, MINE),
        Attack("a prefix that is endless", f"GET /events?prefix={_LONG}", BAD, MINE),
        Attack("a prefix without the right to list", "GET /events?prefix=mine", SCOPE, DESCRIBES),
        Attack("read with a token to describe", "GET /events?stream=mine", SCOPE, DESCRIBES),
        Attack("an endless name", f"GET /events?stream={_LONG}", BAD, MINE),
        Attack("half of a character", "POST /events", BAD, MINE, '{"streams": ["\\ud800"]}'),
        Attack("257 streams", f"GET /events?{'stream=mine&' * 2}{_MANY}", BAD, MINE),
        Attack("an id that is none", "GET /events?stream=mine&after=m1.x", BAD, MINE),
        Attack(
            "an id that is endless", f"GET /events?stream=mine&after=m1.{'A' * 20_000}", BAD, MINE
        ),
        Attack("a body that is garbage", "POST /events", BAD, MINE, "\x00{"),
        Attack("a body that is deep", "POST /events", BAD, MINE, "[" * 100_000),
        Attack("a body that is too large", "POST /events", BAD, MINE, " " * 1_100_000),
        Attack("a body without a token", "POST /events", REQUIRED, {}, " " * 1_100_000),
        Attack("a ticket", "GET /events?stream=mine&ticket=<ticket>", INVALID),
        Attack("a ticket, by POST", "POST /events?ticket=<ticket>", INVALID, {}, _MINE_BODY),
        Attack(
            "a POST of a page of another origin",
            "POST /events",
            ORIGIN,
            {**COOKIE, "Origin": "https://evil.example"},
            _MINE_BODY,
        ),
        Attack("a POST of another site", "POST /events", SITE, {**COOKIE, **CROSS}, _MINE_BODY),
        Attack(
            "a POST of a form of another site", "POST /events", SITE, {**COOKIE, **LINK}, _MINE_BODY
        ),
        Attack(
            "a POST of another port of this machine",
            "POST /events",
            ORIGIN,
            {**COOKIE, "Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
            _MINE_BODY,
        ),
        Attack("a POST with a cookie, of no page", "POST /events", INVALID, COOKIE, _MINE_BODY),
        Attack(
            "a POST with a cookie, by a rebound name",
            "POST /events",
            HOST,
            {**OWN_COOKIE, "Host": "evil.example"},
            _MINE_BODY,
        ),
        Attack(
            "a POST that is to delete",
            "POST /events",
            ABSENT,
            {**MINE, "X-HTTP-Method-Override": "DELETE"},
            '{"streams": ["theirs"]}',
        ),
        Attack("a DELETE of all", "DELETE /events?prefix=mine", (405, "method_not_allowed"), MINE),
    ],
}

DOCUMENT = Path(__file__).parents[2] / "docs/tokens.md"
BEGIN, END = "<!-- tests/gateway/attacks.py -->\n", "<!-- end -->\n"


def renewed(document: str) -> str:
    """Return the document with its table as the list has it."""
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}{_table()}\n{END}{rest.partition(END)[2]}"


def _table() -> str:
    parts = []
    for theme, attacks in ATTACKS.items():
        rows = [f"| {_cell(each.what)} | {_answer(each.answer)} |" for each in attacks]
        parts.append("\n".join([f"| {theme} | answer |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def _answer(answer: tuple[int, str]) -> str:
    status, code = answer
    if answer == REPORTED:
        return "200, and an event `error` with `stream_not_found`"
    return f"{status}, {code}" if answer in (NOTHING, LEFT_OUT) else f"{status} `{code}`"


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text()))
