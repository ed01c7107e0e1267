"""URLs of storages: what they may be, and where their files lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from msnas_optuna.storage.passwords import has_secret, is_word, redact

_FILES: Final = ("sqlite", "journal")
_SERVERS: Final = ("postgresql", "grpc")

_JOURNAL_PATH: Final = re.compile(r"[^:]+\.(log|journal)")  # a plain path


def parse(url: str) -> URL:
    """The parts of a URL; ValueError, without a password, if no storage can have it."""
    if _JOURNAL_PATH.fullmatch(url):
        return URL.create("journal", database=url)
    shown = redact(url) if is_word(url) or not has_secret(url) else "***"
    rule = (
        "a storage is sqlite:///path.db, postgresql+psycopg://user@host/database, "
        "grpc://host:port of a proxy or, on a network file system, journal:///path.log; "
        f"got {shown!r}"
    )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(rule) from None  # the cause may quote the password
    backend, database = parsed.get_backend_name(), parsed.database or ""
    if backend in _FILES:
        if parsed.host or parsed.username or has_secret(database):
            raise ValueError(rule)
        if database in ("", ":memory:"):
            raise ValueError(
                f"a {backend} storage needs a file, as in {backend}:///study.db; got {shown!r}"
            )
    elif backend not in _SERVERS:
        raise ValueError(rule)
    elif backend == "grpc" and not re.fullmatch(r"grpc://([^/:@]+|\[[^/@]+\]):\d+", url):
        raise ValueError(f"a proxy's URL is grpc://host:port, got {shown!r}")
    elif (
        not is_word(url)
        or "@" in (parsed.host or "")
        or re.search(r"[:=]", parsed.username or "")
        or re.search(r"[:=@]", database)
    ):
        raise ValueError(f"{rule}; write @ as %40, / as %2F and a space as %20 in a password")
    return parsed


def is_storage_url(text: str) -> bool:
    """True if a text names a storage, be it misspelled, rather than any other file."""
    start = re.match(r"\w+(\+\w+)?:", text)
    return bool(start or _JOURNAL_PATH.fullmatch(text)) or has_secret(text)


def storage_file(url: str) -> Path | None:
    """The file of a storage that is one."""
    parsed = parse(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() in _FILES else None


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
    return file is None or file.exists()


def without_secrets(text: str, url: URL) -> str:
    """A message of a driver without the password and the parameters of its URL."""
    secrets = {value for values in url.normalized_query.values() for value in values}
    secrets = {value for value in secrets if len(value) > 3}  # "9" is none
    for secret in sorted(secrets | {str(url.password or "***")}, key=len, reverse=True):
        for form in {secret, quote(secret), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text
