"""Masks what is secret in text and values that are shown: the one list of what counts as secret.

Everything that reaches a terminal, a log, JSON, a page or an error passes one of these:

* :func:`mask_credentials` for text of any origin, such as the message of a client's exception;
* :func:`mask_value` for the value of a setting, :func:`mask_data` for nested JSON-ready data;
* :func:`seen_value` for a value that a message quotes because it is wrong.

Masking comes before escaping for a terminal (``_terminal_text``). The name of a stream is escaped
and not masked: a masked name could not be copied.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Any

from pydantic import SecretBytes, SecretStr

MASK = "***"
"""Stands in text for what is secret."""

VALUE_MASK = "**********"
"""Stands for the value of a setting, or for the part of it that is secret."""

_LONGEST_SEEN = 300
_KEPT = "\ue000"  # of the private use area: no client's text has it

# A name is split into words. It is the name of a secret if it ends with one of these words, if its
# last word ends with one of these syllables, or if "key" follows one of these words.
_SECRET_WORDS = frozenset(
    (
        *("pass", "passwd", "passcode", "passkey", "passphrase", "password", "pwd", "pw"),
        *("secret", "secrets", "token", "credential", "auth", "authorization", "cookie"),
        *("sig", "signature", "sas", "jwt", "bearer", "otp"),
    )
)
_SECRET_ENDS = ("password", "passwd", "secret", "token", "signature", "apikey", "accesskey")
_WORDS_BEFORE_KEY = frozenset(
    (
        *("access", "account", "api", "app", "auth", "encryption", "function", "hmac"),
        *("license", "master", "private", "secret", "service", "session", "shared"),
        *("signing", "ssh", "storage", "subscription"),
    )
)
_PARAMETERS = frozenset(["key", "code", "pin"])  # secret in a query only
# Sentences have these, too, before a colon: "unexpected token: '}'", "second pass: done". There the
# value tells whether it is a secret. The value of a password may be any word.
_AMBIGUOUS_WORDS = frozenset(
    (
        *("pass", "token", "auth", "authorization", "credential", "cookie", "key", "keys"),
        *("sig", "signature", "sas", "jwt", "bearer", "otp"),
    )
)
_NO_SECRETS = frozenset(
    (
        *("none", "null", "nil", "true", "false", "undefined", "missing", "required", "empty"),
        *("unset", "str", "string", "bytes", "int", "bool", "any", "object", "optional"),
    )
)
_WORDS_AFTER_OPTION = frozenset(
    (
        *("is", "was", "are", "has", "needs", "requires", "must", "may", "can", "cannot", "does"),
        *("and", "or", "to", "for", "of", "in", "on", "with", "without", "if", "when", "as"),
        *("from", "should", "option", "not", "given", "takes"),
    )
)
_WHOLE_LINES = ("authorization", "cookie")  # their values have several parts
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# A PEM text; one in base64, at each alignment; a key in DER, as PEM without its first line.
_KEY_TEXTS = (
    r"-----BEGIN [^-\n]{1,60}-----[\s\S]*?(?:-----END [^-\n]{1,60}-----|\Z)",
    r"(?:LS0tLS1CRUdJTi|0tLS1CRUdJTi|tLS0tLUJFR0lOI)(?:[\w+/=-]|\\[nr]|\s(?=[\w+/]{20}))*",
    r"\bMI[A-Za-z0-9+/]{38,}={0,2}(?:(?:\\[nr]|\s)+[A-Za-z0-9+/]{20,}={0,2})*",
)
# Tokens that have a form of their own: JWT, AWS, GitHub, GitLab, Slack, model providers, Google,
# SendGrid, Vault. The secret key of AWS has 40 characters of base64.
_TOKENS = (
    r"(?<![\w-])eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*){0,3}",
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    r"(?<![\w/+=-])(?=[A-Za-z0-9/+]*[A-Z])(?=[A-Za-z0-9/+]*[a-z])(?=[A-Za-z0-9/+]*\d)"
    r"[A-Za-z0-9+][A-Za-z0-9/+]{39}(?![\w/+=-])",
    r"\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}",
    r"\bxox[a-z]-[\w-]{10,}",
    r"(?<![\w-])(?:sk|rk)[-_](?=[\w-]*\d)[\w-]{16,}",
    r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}",
    r"\bSG\.[\w-]{16,}\.[\w-]{16,}|\bhvs\.[\w-]{20,}",
)
_FORMS = re.compile("|".join((*_KEY_TEXTS, *_TOKENS)))
_SCHEME = re.compile(
    r"\b(bearer|basic|digest|negotiate)(\s+)(?=[^\s'\",;]*[\d=+/._-])[^\s'\",;]{6,}", re.IGNORECASE
)
# After "scheme://", of which a path keeps one slash only, everything up to the last @ belongs to
# the credentials, since a password may contain any character but a space or a quote; a host and its
# port do not. Some services take a token there without a colon. Without a scheme a slash ends them.
# In all forms several addresses may follow one another after commas.
_USER_INFO = re.compile(
    r"""
    (\w+:/{1,2}) (?![^\s/:@]*:\d+/) [^\s/:"@]* : (?:(?!,\w+:/) [^\s"])* @
    | (\w+:/{1,2}) [^\s/:"'@,?\#]+ @
    | (?<![\w.+-]) (?!\w+:/|mailto:|sips?:) [^\s/,'"@:]* : (?:(?!,[^\s,]*:) [^\s/"])* @(?!sha256:)
    """,
    re.VERBOSE,
)
_ADDRESSES = re.compile(r'[^\s"]+')
_LONGEST_ADDRESS = 2_000
_NAME = re.compile(
    r"(?:(?<![\w.-])|(?<=%[0-9A-Fa-f]{2}))(?P<dashes>--)?(?P<name>[A-Za-z_][\w.-]*)"
    r"(?P<between>\\?[\"']?\s{0,3}(?::=|[=!]==?|=>?|%3[Dd]|:(?!//))\s{0,3}"
    r"|(?<=[\w.-])\s+(?!-))"
)
_QUOTED_VALUE = re.compile(
    r"""[bB]?(?:\\"(?:(?!\\").)*(?:\\")? | "(?:\\.|[^"\\])*"? | '(?:\\.|[^'\\])*'?)""",
    re.VERBOSE | re.DOTALL,
)
_BARE_VALUE = re.compile(r"""(?:[^\s&;,"'<>]|,(?!\s|[\w.-]+=|$))+""")
_REST_OF_LINE = re.compile(r"""[^\n"']+""")
_QUOTES = "bB\\\"'"
_LOOKS_SECRET = re.compile(r"(?=\D*\d)(?=\d*(?:[^\W\d]|\d{6}))\S{6,}|(?=.*[a-z])(?=.*[A-Z])\S{24,}")
_SCHEME_FIRST = re.compile(r"(?:bearer|basic|digest|negotiate|token|apikey)\s+\S", re.IGNORECASE)
_LONGEST_WORD = 100
_LONGEST_SENTENCE = 300
_SHORTEST_TOKEN = 4
_SENTENCE_BEFORE = re.compile(r"[\w)'\"`]\s+$")
_KEY_BEFORE = re.compile(r"(\w+)[ _-]$")
_END_OF_VALUE = re.compile(r"\s*(?:$|[\n,;}\]):'\"]|\.(?:\s|$))")
# Host, port and number of a database, or the path of a socket. Any other secret, such as a URL
# whose password has special characters that are not encoded, is masked as a whole.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    r"(?P<place>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/\d{0,4})?"
    r"|(?<=unix://)/[^?@#\s]*|(?<=@)/[^?@#\s]*)"
    r"(?P<query>\?[^@#\s]*)?"
)


@functools.lru_cache(1_000)
def is_secret_name(name: str) -> bool:
    """Whether a setting, a variable, a parameter, a header or a field of this name has a secret.

    ``STREAMQ_KAFKA_SASL_PASSWORD``, ``X-Amz-Signature`` and ``SharedAccessKey`` have one;
    ``STREAMQ_REDIS_KEY_PREFIX``, ``tls_key_file`` and ``max_tokens`` have none.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if words[-2:] == ["key", "id"]:
        words.pop()
    if not words:
        return False
    last = words[-1]
    if last in _SECRET_WORDS or last.endswith(_SECRET_ENDS):
        return True
    return last in ("key", "keys") and len(words) > 1 and words[-2] in _WORDS_BEFORE_KEY


def mask_credentials(text: str, mask: str = MASK, *, keep: str = "") -> str:
    """Return text with a mask in place of everything that is secret or looks so.

    Masked are keys in PEM or DER; ``user:password`` or a token before an ``@``; the values of
    parameters, fields, headers and options whose names say that they are secret
    (:func:`is_secret_name`); and tokens that are known by their form, such as JWT and keys of AWS.
    Where a name may be a word of a sentence, as in "unexpected token: name", only a value that
    looks like a secret is masked. The time that this takes grows with the length of the text.

    Args:
        text: Text of any origin.
        mask: Stands for the secret.
        keep: Part of the text that is no secret, whatever it looks like: the name of a stream.
    """
    if keep and keep in text and _KEPT not in text:
        return mask_credentials(text.replace(keep, _KEPT), mask).replace(_KEPT, keep)
    text = _FORMS.sub(mask, text)
    if "@" in text:
        text = _ADDRESSES.sub(lambda found: _without_user_info(found[0], mask), text)
    text = _SCHEME.sub(lambda found: f"{found[1]}{found[2]}{mask}", text)
    parts: list[str] = []
    done = 0
    for found in _NAME.finditer(text):
        if found.start() < done or not _names_secret(found, text):
            continue
        end = _end_of_value(found, text)
        if end is not None:
            parts += text[done : found.end()], mask
            done = end
    return "".join((*parts, text[done:]))


def _without_user_info(word: str, mask: str) -> str:
    if "@" not in word:
        return word
    if len(word) > _LONGEST_ADDRESS:
        return mask + word[word.rindex("@") :]
    return _USER_INFO.sub(lambda found: f"{found[1] or found[2] or ''}{mask}@", word)


def _names_secret(found: re.Match[str], text: str) -> bool:
    name, start = found["name"][-_LONGEST_WORD:], found.start()
    follows = text[found.end() : found.end() + 1]
    if not found["between"].strip() and not found["dashes"] and follows not in ("'", '"'):
        return False  # words of a sentence
    if is_secret_name(name):
        return True
    if text[max(start - 1, 0)] in "?&;" and name.lower() in _PARAMETERS:
        return True
    before = _KEY_BEFORE.search(text, max(start - 20, 0), start) if name.lower() == "key" else None
    return before is not None and before[1].lower() in _WORDS_BEFORE_KEY


def _end_of_value(found: re.Match[str], text: str) -> int | None:
    """Return where the value of a secret name ends; ``None`` if no secret follows the name."""
    operator = found["between"].strip()
    start = found.end()
    if (value := _QUOTED_VALUE.match(text, start)) is not None:
        inner = value[0].strip(_QUOTES)
        is_word = (not operator and not found["dashes"]) or _is_ambiguous(found, text)
        return None if is_word and not _LOOKS_SECRET.fullmatch(inner) else value.end()
    if found["name"].lower().endswith(_WHOLE_LINES):
        value = _REST_OF_LINE.match(text, start)
        return None if value is None or _is_sentence(found, text, value[0]) else value.end()
    value = _BARE_VALUE.match(text, start)
    if value is None:
        return None
    bare = value[0].rstrip(")]}.:")
    end = start + len(bare)
    if len(bare) > _LONGEST_WORD or _LOOKS_SECRET.fullmatch(bare):
        return end
    if bare.lower() in _NO_SECRETS or not bare:
        return None
    if not operator:
        return None if bare.lower() in _WORDS_AFTER_OPTION else end
    if operator == ":" and _END_OF_VALUE.match(text, end) is None:
        return None  # a sentence about the name
    is_short = operator == ":" and len(bare) < _SHORTEST_TOKEN
    if is_short and found["name"].lower() in _AMBIGUOUS_WORDS:
        return None
    return None if _is_ambiguous(found, text) else end


def _is_ambiguous(found: re.Match[str], text: str) -> bool:
    """Whether a colon after a name that words of a sentence precede may belong to the sentence."""
    return (
        found["between"].strip() == ":"
        and found["name"].lower() in _AMBIGUOUS_WORDS
        and _SENTENCE_BEFORE.search(text, max(found.start() - 4, 0), found.start()) is not None
    )


def _is_sentence(found: re.Match[str], text: str, line: str) -> bool:
    """Whether the rest of a line is that of a sentence, and not the value of a header."""
    words = line.split()
    if found["between"].strip() != ":" or not (_is_ambiguous(found, text) or len(words) > 2):
        return False
    if "=" in line or len(line) > _LONGEST_SENTENCE or _SCHEME_FIRST.match(line):
        return False
    return not any(_LOOKS_SECRET.fullmatch(word) for word in words)


def mask_value(value: object, name: str = "") -> bool | int | float | str | None:
    """Return the value of a setting in a form that may be shown: JSON-ready and without secrets.

    Of an address, only the parts are masked that may be secret, not host and port. A value of
    several lines is masked as a whole: it is a key.

    Args:
        value: The value.
        name: Name of the setting; a secret name masks a value of any type.
    """
    if isinstance(value, SecretStr):
        return _mask_secret(value.get_secret_value())
    if isinstance(value, SecretBytes):
        return VALUE_MASK if value.get_secret_value() else ""
    if isinstance(value, enum.Enum):
        return mask_value(value.value, name)
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if is_secret_name(name):
        return _mask_secret(text)
    if len(text.splitlines()) > 1:
        return VALUE_MASK
    return mask_credentials(text, VALUE_MASK)


def mask_data(data: Any, name: str = "") -> Any:
    """Return JSON-ready data with every secret in it masked, at any depth.

    Args:
        data: Mappings, sequences, text, numbers.
        name: Name of the data in what contains it.
    """
    if isinstance(data, dict):
        return {key: mask_data(value, str(key)) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [mask_data(each, name) for each in data]
    if isinstance(data, str):
        return VALUE_MASK if data and is_secret_name(name) else mask_credentials(data)
    return data


def seen_value(value: object) -> str:
    """Return a value as an error quotes it: in one line, without secrets, not longer than useful.

    A value of several lines is never shown: whoever gives one where one line is expected has
    usually given the text of a key for the path of its file.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    lines = len(value.splitlines()) if isinstance(value, str) else 1
    if lines > 1:
        return f"a text of {lines} lines, which is not shown"
    text = (
        repr(mask_credentials(value)) if isinstance(value, str) else mask_credentials(repr(value))
    )
    return text if len(text) <= _LONGEST_SEEN else f"{text[:_LONGEST_SEEN]}..."


def _mask_secret(secret: str) -> str:
    found = _ADDRESS.fullmatch(secret.strip())
    if found is None:
        return VALUE_MASK if secret else ""
    user, password = found["user"] or "", found["password"]
    credentials = ""
    if password:
        credentials = f"{user}:{VALUE_MASK}@"
    elif user:  # some services accept a token there
        credentials = f"{VALUE_MASK}@"
    query = f"?{VALUE_MASK}" if found["query"] else ""
    return f"{found['scheme']}://{credentials}{found['place']}{query}"
