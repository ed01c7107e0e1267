"""URLs of storages: what they may be, where their files lie, and how to show them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

FILES: Final = ("sqlite", "journal")
"""Storages that are a file."""

_NO_FILE: Final = (None, "", ":memory:")

_SECRET: Final = re.compile(r"pass|secret|token", re.IGNORECASE)
"""Names of query parameters that nobody should see."""


def parse(url: str) -> URL:
    """The parts of a URL.

    Raises:
        ValueError: it is no URL of a storage.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(url_rule(url)) from None  # the cause may quote the password
    if _is_torn(parsed):
        raise ValueError(f"{url_rule(url)}; write @ as %40 and / as %2F in a password")
    return parsed


def _is_torn(url: URL) -> bool:
    """Whether an @ of the password has been taken for the one before the host."""
    return "@" in f"{url.host}{url.port}"


def url_rule(url: str) -> str:
    """What a storage may be, and what came."""
    return (
        "a storage is sqlite:///path.db, postgresql+psycopg://user:password@host/database, "
        "grpc://host:port of a proxy or, on a network file system, journal:///path.log; "
        f"got {redacted(url)!r}"
    )


def is_storage_url(text: str) -> bool:
    """Whether a text names a storage rather than any other file."""
    return "://" in text or is_journal_path(text)


def is_journal_path(url: str) -> bool:
    """Whether it is the plain path of a journal."""
    return re.fullmatch(r"[^:]+\.(log|journal)", url) is not None


def storage_file(url: str) -> Path | None:
    """The file of a storage that is one.

    Raises:
        ValueError: it is no URL of a storage.
    """
    if is_journal_path(url):
        return Path(url)
    parsed = parse(url)
    if parsed.get_backend_name() not in FILES or parsed.database in _NO_FILE:
        return None
    return Path(str(parsed.database))


def sqlite_url(path: Path) -> str:
    """The URL of a sqlite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def relative_to(url: str, folder: Path) -> str:
    """The URL of a storage whose file, if it is one, is relative to a folder.

    Raises:
        ValueError: it is no URL of a storage.
    """
    file = storage_file(url)
    if file is None:
        return url
    if is_journal_path(url):
        return str(folder / file)
    return parse(url).set(database=str(folder / file)).render_as_string(hide_password=False)


def storage_exists(url: str) -> bool:
    """Whether there is anything to open; a server is taken to be there."""
    if not is_journal_path(url) and parse(url).get_backend_name() not in FILES:
        return True
    file = storage_file(url)
    return file is not None and file.exists()


def redacted(url: str) -> str:
    """The URL without passwords; without all that may hold one, if it cannot be parsed."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return re.sub(r"//.*@", "//***@", url).split("?", maxsplit=1)[0]
    if _is_torn(parsed):
        return f"{parsed.drivername}://***"
    shown = {k: "***" if _SECRET.search(k) else v for k, v in parsed.query.items()}
    rendered = parsed.set(query=shown).render_as_string(hide_password=True)
    return rendered.replace("=%2A%2A%2A", "=***")


def has_secret(url: str) -> bool:
    """Whether the URL must not be shown as it is."""
    return is_journal_path(url) is False and bool(_secrets(url))


def without_secrets(text: str, url: str) -> str:
    """A message about a storage without the storage's passwords."""
    for secret in _secrets(url):
        for form in {secret, quote(secret), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text


def _secrets(url: str) -> list[str]:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return []
    found = [parsed.password] if parsed.password else []
    for key, value in parsed.query.items():
        if _SECRET.search(key):
            found += [value] if isinstance(value, str) else list(value)
    return sorted((str(secret) for secret in found if secret), key=len, reverse=True)
