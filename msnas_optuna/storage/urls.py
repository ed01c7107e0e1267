"""URLs of storages: what they may be, where their files lie, and how to show them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_FILES: Final = ("sqlite", "journal")
_SERVERS: Final = ("postgresql", "grpc")

_JOURNAL_PATH: Final = re.compile(r"[^:]+\.(log|journal)")  # a plain path

# Host, port and database: what may be shown of a server's URL.
_ADDRESS: Final = re.compile(r"([\w.-]*|\[[\da-fA-F:.]+\])(:\d+)?(/[\w.-]*)?")


def parse(url: str) -> URL:
    """The parts of a URL; ValueError, without secrets, if it is none of a storage."""
    if _JOURNAL_PATH.fullmatch(url):
        return URL.create("journal", database=url)
    rule = (
        "a storage is sqlite:///path.db, postgresql+psycopg://user:password@host/database, "
        "grpc://host:port of a proxy or, on a network file system, journal:///path.log; "
        f"got {redacted(url)!r}"
    )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(rule) from None  # the cause may quote the password
    backend, server = parsed.get_backend_name(), parsed.host or parsed.username
    if backend not in (*_FILES, *_SERVERS) or (backend in _FILES and server):
        raise ValueError(rule)
    if parsed.get_backend_name() in _SERVERS and (
        "@" in (parsed.host or "")
        or re.search(r"[:=]", parsed.username or "")
        or re.search(r"[:=@]", parsed.database or "")
    ):
        raise ValueError(f"{rule}; write @ as %40 and / as %2F in a password")
    return parsed


def is_storage_url(text: str) -> bool:
    """True if a text names a storage rather than any other file."""
    return "://" in text or _JOURNAL_PATH.fullmatch(text) is not None


def storage_file(url: str) -> Path | None:
    """The file of a storage that is one."""
    parsed = parse(url)
    if parsed.get_backend_name() not in _FILES or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def sqlite_url(path: Path) -> str:
    """The URL of a sqlite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def relative_to(url: str, folder: Path) -> str:
    """The URL of a storage whose file, if it is one, is relative to a folder."""
    file = storage_file(url)
    if file is None:
        return url
    return parse(url).set(database=str(folder / file)).render_as_string(hide_password=False)


def storage_exists(url: str) -> bool:
    """True if there is anything to open; a server is taken to be there."""
    file = storage_file(url)
    return parse(url).get_backend_name() in _SERVERS if file is None else file.exists()


def has_secret(url: str) -> bool:
    """True if the URL has a password, or parameters after '?', which may be secrets too."""
    parsed = parse(url)
    return bool(parsed.password or parsed.query)


def redacted(url: str) -> str:
    """The URL without user, password and parameters; "..." for what may hide a password."""
    scheme, found, rest = url.partition("://")
    if not found:
        plain = _JOURNAL_PATH.fullmatch(url) or re.fullmatch(r"[\w ./~-]*", url)
        return url if plain else "..."
    place, query, _ = rest.partition("?")
    _, user, address = place.rpartition("@")
    kind = scheme.partition("+")[0]
    if kind in _FILES and place.startswith("/"):
        shown = place
    elif kind in _SERVERS and _ADDRESS.fullmatch(address):
        shown = f"***@{address}" if user else address
    else:
        return f"{scheme}://..." if re.fullmatch(r"\w+(\+\w+)?", scheme) else "..."
    return f"{scheme}://{shown}" + ("?***" if query else "")


def without_secrets(text: str, url: URL) -> str:
    """A message of a driver without the password and the parameters of its URL."""
    secrets = {value for values in url.normalized_query.values() for value in values}
    secrets = {value for value in secrets if len(value) > 3}  # "9" is none
    for secret in sorted(secrets | {str(url.password or "***")}, key=len, reverse=True):
        for form in {secret, quote(secret), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text
