"""Headless Chromium for tests of pages, by ChromeDriver's HTTP interface and nothing else."""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

PROGRAMS = ("chromium", "chromedriver")  # Debian: chromium, chromium-driver
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str:
    """Why there is no browser to test with; "" where there is one."""
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    return f"not installed: {', '.join(absent)} (Debian: chromium chromium-driver)" if absent else ""


class Browser:
    """A session of its own profile."""

    def __init__(self, port: int, profile: str):
        self._port, self._path = port, ""
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        begun = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._path = f"/session/{begun['sessionId']}"

    def call(self, method: str, path: str, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{self._path}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screen(self, width: int, dark: bool = False) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path) -> None:
        self.call("POST", "/url", {"url": f"file://{path}"})

    def run(self, script: str, *arguments):
        """What a script returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def point(self, kind: str, x: float, y: float, press: bool = False) -> None:
        """Moves a pointer ("mouse" or "touch") to a place of the window, and presses it there."""
        actions = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        if press:
            actions += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions}
        self.call("POST", "/actions", {"actions": [pointer]})

    def press(self, key: str) -> None:
        """A key by WebDriver's code of it."""
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def without_scripts(self, path) -> str:
        """The elements of a page that was opened with JavaScript off."""
        self.devtools("Emulation.setScriptExecutionDisabled", value=True)
        self.open(path)
        top = self.devtools("DOM.getDocument")["root"]["nodeId"]
        text = self.devtools("DOM.getOuterHTML", nodeId=top)["outerHTML"]
        self.devtools("Emulation.setScriptExecutionDisabled", value=False)
        return text

    def errors(self) -> list:
        """What the console has said since the last time, of errors and warnings."""
        return [line["message"] for line in self.call("POST", "/se/log", {"type": "browser"})]


@contextlib.contextmanager
def opened():
    """A Browser, whose processes end with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    profile = tempfile.mkdtemp(prefix="bltjax-browser-")
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    browser = None
    try:
        until = time.monotonic() + 60
        while browser is None:
            try:
                browser = Browser(port, profile)
            except ConnectionError:
                pass
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
            if browser is None and time.monotonic() > until:
                raise TimeoutError("chromedriver does not answer")
            time.sleep(0.1)
        yield browser
    finally:
        if browser:
            browser.call("DELETE", "")
        driver.terminate()
        driver.wait()
        shutil.rmtree(profile, ignore_errors=True)
