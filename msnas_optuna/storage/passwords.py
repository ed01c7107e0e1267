"""Passwords in a text, and the text without them: one rule for all that is printed or stored.

A word hides what stands before its last @ where that has a colon, as user:secret@host, and what
may be a password in the place of a port. Behind ? all is hidden, since any parameter of a URL may
be secret, and so is the value of a key like `pwd=`. Percent-encoded signs count as the signs.
"""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(r"[^\s\"'<>\x1b]+")  # a control sequence colors text, and is none of it
_COLON: Final = re.compile(r":|%(?:25)*3a", re.IGNORECASE)
_LAST_AT: Final = re.compile(r"(.*)((?:@|%(?:25)*40).*)", re.IGNORECASE | re.DOTALL)
_START: Final = re.compile(r"[^:@]*://|[^:@]*?postgres\w*+(?:\+\w++)?(?:://|:/?|//)")
_NO_PORT: Final = re.compile(
    r"(\[[^\]]*\]|[^:/?#@[]*):(?!(?:\d{1,5}|port)(?:[/?#]|[^\w%]*$))", re.IGNORECASE
)
_QUERY: Final = re.compile(
    r"((?>.*?(?:\?|%(?:25)*3f))).*(?:=|%(?:25)*3d)", re.IGNORECASE | re.DOTALL
)
_KEY: Final = re.compile(
    r"((?:(?:passw|passphrase|pwd|secret)\w{0,40}|(?<![^\W_])pass)[\"']?\s*(?:[:=]|%3d)\s*)"
    r"([\"']?)(?:(?<=\")[^\"\n]*|(?<=')[^'\n]*|(?<![\"'])[^\s\"'<>\x1b]+)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """A text with *** for everything in it that reads like a password."""
    return _WORD.sub(lambda word: _shown(word[0]), _KEY.sub(r"\1\2***", text))


def has_secret(value: str) -> bool:
    """True if a value holds what `redact` would hide, be there spaces or quotes in it or not."""
    return any(redact(text) != text for text in (value, re.sub(r"[\s\"'<>\x1b]", "", value)))


def is_word(value: str) -> bool:
    """True if `redact` sees a value as one word wherever it stands in a text."""
    return _WORD.fullmatch(value) is not None


def _shown(word: str) -> str:
    found = _START.match(word)
    start = found[0] if found else ""
    rest = word[len(start) :]
    if "http" not in start.lower() and (query := _QUERY.match(rest)) is not None:
        rest = f"{query[1]}***"
    user, at = "", rest
    if (parts := _LAST_AT.fullmatch(rest)) is not None:
        user, at = parts.groups()
        user = "***" if _COLON.search(user) else user
    if found and _NO_PORT.match(at.removeprefix("@")):
        return f"{start}***"
    return start + user + at
