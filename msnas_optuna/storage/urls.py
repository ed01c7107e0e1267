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

_SERVERS: Final = ("postgresql", "grpc")

_HARMLESS: Final = frozenset(
    (
        *("host", "hostaddr", "port", "connect_timeout", "tcp_user_timeout", "application_name"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("sslmode", "sslrootcert", "ssl_min_protocol_version", "channel_binding"),
        *("target_session_attrs", "load_balance_hosts", "timeout", "client_encoding"),
    )
)
"""Parameters of a query that hold no secret and make no driver write, run or log in otherwise."""

_SHOWN: Final = _HARMLESS | {"uri", "mode", "cache"}
"""Parameters of a query that hold no secret."""


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
    """Whether a password has been taken for a part of the URL that is shown."""
    return url.get_backend_name() in _SERVERS and bool(
        "@" in f"{url.host}"
        or re.search(r"[:=]", url.username or "")
        or re.search(r"=|:.*@", url.database or "")
    )


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
    """The URL without passwords; its scheme alone, if it is none that is known well."""
    if is_journal_path(url) or re.fullmatch(r"[\w./~-]+", url):
        return url
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return _scheme(url)
    if parsed.get_backend_name() not in (*FILES, *_SERVERS) or _is_torn(parsed):
        return _scheme(url)
    shown = {k: v if k in _SHOWN else "***" for k, v in parsed.query.items()}
    rendered = parsed.set(query=shown).render_as_string(hide_password=True)
    return rendered.replace("=%2A%2A%2A", "=***")


def _scheme(url: str) -> str:
    known = re.match(rf"({'|'.join((*FILES, *_SERVERS))})\b(\+\w+)?(:/*)?|\w+://", url)
    return f"{known[0] if known else ''}..."


def doubtful_parameters(url: str) -> list[str]:
    """Query parameters that may make a driver write a file, run a program or read other settings.

    libpq, for one, writes the keys of the connection where sslkeylogfile says.

    Raises:
        ValueError: it is no URL of a storage.
    """
    return [] if is_journal_path(url) else sorted(set(parse(url).query) - _HARMLESS)


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
        if key not in _SHOWN:
            found += [value] if isinstance(value, str) else list(value)
    return sorted((str(secret) for secret in found if secret), key=len, reverse=True)
