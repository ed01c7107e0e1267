"""A note that the search and people write together, in Markdown.

Between two marks stands what the search writes; what people write outside of them stays.
"""

from __future__ import annotations

import re
from typing import Final

# Link definitions that nothing refers to: Markdown's only invisible lines without HTML.
BEGIN: Final = "[//]: # (msnas: begin)"
END: Final = "[//]: # (msnas: end)"

_MARKED: Final = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), flags=re.DOTALL)


def merged(written: str, own: str) -> str:
    """A note with our part replaced, or put first where there is none yet.

    Args:
        written: the note as it is stored.
        own: our part, without marks.
    """
    part = f"{BEGIN}\n\n{own.strip()}\n\n{END}"
    if _MARKED.search(written):
        return _MARKED.sub(lambda _: part, written, count=1)
    return f"{part}\n\n{written}".rstrip() + "\n"


def by_people(written: str) -> str:
    """What people wrote into a note."""
    return _MARKED.sub("", written).strip()
