"""Writes a figure as a page that needs no network, or as plotly's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import plotly.graph_objects as go

_SUFFIXES: Final = (".html", ".json")

_BOTH_SCHEMES: Final = '<head><meta name="color-scheme" content="light dark" />'
"""Lets the page behind a figure without background follow the reader's light or dark scheme."""


def write_figure(figure: go.Figure, path: Path) -> None:
    """Writes a self-contained page, or the figure's JSON where the name ends in .json.

    Raises:
        ValueError: the name ends neither in .html nor in .json.
        OSError: the file cannot be written.
    """
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"a figure is written to a .html or .json file, got {path}")
    if path.suffix == ".json":
        text = figure.to_json()
    else:
        page = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
        text = page.replace("<head>", _BOTH_SCHEMES, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
