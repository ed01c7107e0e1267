"""Drives a real Chromium by its DevTools protocol, over a pipe and without further packages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

PATIENCE = 120.0
"""Seconds until a page that does not come is a failure; it decides nothing else."""


def program() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One tab: what it shows, what it complains about, and what it asks for."""

    def __init__(self, browser: Browser, width: int, height: int) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session = attached["sessionId"]
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Runtime", "Log", "Network", "Page"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._browser.call(method, parameters or {}, session=self._session)
        self._note_events()
        return answer

    def _note_events(self) -> None:
        for event in self._browser.events(self._session):
            parameters = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(parameters["exceptionDetails"]))
                case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                    self.complaints.append(json.dumps(parameters["entry"]))
                case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                    self.complaints.append(json.dumps(parameters["args"]))
                case "Network.requestWillBeSent":
                    self.requests.append(parameters["request"]["url"])

    def dark(self) -> None:
        """Prefers a dark scheme."""
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        self._call("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, url: str) -> None:
        """Goes to a page."""
        self._call("Page.navigate", {"url": url})

    def value(self, script: str) -> Any:
        """What an expression is worth on the page."""
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Waits until an expression is true, and gives what it is worth."""
        deadline = time.monotonic() + PATIENCE
        guarded = f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"
        while not (value := self.value(guarded)):
            shown = str(self.value("document.body && document.body.innerText"))[:2000]
            assert time.monotonic() < deadline, f"{script}: {self.complaints}\n{shown}"
            time.sleep(0.2)
        return value

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Writes a PNG file of the whole page."""
        parameters = {"captureBeyondViewport": whole}
        content = self._call("Page.captureScreenshot", parameters)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", {})["data"])


class Browser:
    """A running Chromium; messages are JSON that ends with a zero byte."""

    def __init__(self, folder: Path) -> None:
        assert program() is not None, "no Chromium is installed; `apt-get install chromium`"
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [program(), *FLAGS, f"--user-data-dir={folder}"]
        # Chromium reads from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number = b"", 0
        self._events: list[dict[str, Any]] = []

    def call(
        self, method: str, parameters: dict[str, Any], *, session: str | None = None
    ) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if "method" in answer:
                self._events.append(answer)

    def events(self, session: str) -> list[dict[str, Any]]:
        """What has happened in a session since the last call."""
        found = [event for event in self._events if event.get("sessionId") == session]
        self._events = [event for event in self._events if event.get("sessionId") != session]
        return found

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            assert ready, "the browser says nothing"
            received = os.read(self._read, 1 << 20)
            assert received, "the browser has ended"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        """Ends the browser."""
        os.close(self._write)  # Chromium ends when nobody can command it
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile."""
    running = Browser(folder)
    try:
        yield running
    finally:
        running.close()
