"""Makes the pictures of the README from a finished study.

    python benchmarks/pictures.py msnas-quickstart/quickstart.toml

writes into benchmarks/pictures/ the best architecture, architecture.svg, and two of the figures,
search.png, which Chromium draws.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from plotly.offline import get_plotlyjs

from msnas_optuna.report.figures import study_figures
from msnas_optuna.report.figures.svg import svg
from msnas_optuna.report.overview import Overview
from msnas_optuna.study.setting import Setting

FOLDER = Path(__file__).parent / "pictures"
FIGURES = ("comparison", "evolution")
WIDTH, HEIGHT = 620, 440  # pixels of one figure


def main() -> None:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study_file", type=Path)
    overview = Overview(Setting.load(parser.parse_args().study_file))
    FOLDER.mkdir(exist_ok=True)
    best, setting = overview.best[0], overview.setting
    name = f"Quickstart, {best.name}: {100 * best.ap:.1f} one-shot mAP"
    drawn = svg(setting.method.picture(best.architecture, name=name, cost=setting.cost))
    (FOLDER / "architecture.svg").write_text(drawn, encoding="utf-8")
    photograph(page(overview), FOLDER / "search.png")
    for file in sorted(FOLDER.iterdir()):
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def page(overview: Overview) -> str:
    """Some of the figures side by side, on no background."""
    figures = study_figures(overview.view)
    parts = []
    for name in FIGURES:
        figure = figures[name].update_layout(width=WIDTH, height=HEIGHT)
        title = figure.layout.title.text.split(". ", maxsplit=1)[1]  # its number says nothing here
        drawn = json.loads(figure.update_layout(title_text=title).to_json())
        drawn["config"] = {"staticPlot": True}
        script = f"<script>Plotly.newPlot('{name}', {json.dumps(drawn)})</script>"
        parts.append(f"<div id='{name}'></div>{script}")
    style = "<style>body { display: flex; margin: 0; }</style>"
    return f"<!DOCTYPE html>{style}<script>{get_plotlyjs()}</script>{''.join(parts)}"


def photograph(html: str, picture: Path) -> None:
    """Has Chromium draw a page into a PNG file without background."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        raise SystemExit("Chromium is not installed; `apt-get install chromium` brings it")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(html, encoding="utf-8")
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={folder}/profile", "--hide-scrollbars",
            "--default-background-color=00000000", "--virtual-time-budget=10000",
            f"--window-size={len(FIGURES) * WIDTH},{HEIGHT}", f"--screenshot={picture}",
            file.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
