"""A headless Chromium, driven over its DevTools pipe by the standard library alone: real clicks, keys and pictures."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
VARIABLE = "HARNESS_CHROMIUM"
_PATIENCE_S = 60.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium():
    """The path of a Chromium: the one that the variable names, else the first on the PATH; None without one."""
    named = os.environ.get(VARIABLE)
    return named or next((found for found in map(shutil.which, NAMES) if found), None)


class Browser:
    """One browser with one page. A context manager: leaving it ends the browser."""

    def __init__(self, executable):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # The pipe is on file descriptors 3 (to the browser) and 4 (from it)
        shell = 'exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null'
        command = [executable, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", shell, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._numbers, self._received, self._events, self._session = itertools.count(1), b"", [], None
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()

    def _call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = self._next_message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer)

    def _next_message(self):
        pipe = self._process.stdout.fileno()
        while b"\0" not in self._received:
            if not select.select([pipe], [], [], _PATIENCE_S)[0]:
                raise TimeoutError(f"The browser said nothing for {_PATIENCE_S:.0f} s.")
            more = os.read(pipe, 1 << 20)
            if not more:
                raise RuntimeError("The browser ended.")
            self._received += more
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _wait_for(self, event):
        while not any(message.get("method") == event for message in self._events):
            self._events.append(self._next_message())

    def open(self, path, *, fragment="", width=1280, height=900, dark=False, scripts=True):
        """Load a file and wait until it has loaded; what was seen before is forgotten."""
        narrow = width < 600
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._events.clear()
        self._call("Page.navigate", url="about:blank")
        self._wait_for("Page.loadEventFired")
        self._events.clear()
        self._call("Page.navigate", url=Path(path).as_uri() + fragment)
        self._wait_for("Page.loadEventFired")

    def evaluate(self, expression):
        """The value of a JavaScript expression, as plain data."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def click(self, selector):
        """Press and release the left button in the middle of the first element that fits."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
        box = self.evaluate(f"{place}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press_enter(self):
        """Press and release the enter key."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def type(self, selector, text):
        """Click into a field and enter ``text``."""
        self.click(selector)
        self._call("Input.insertText", text=text)

    def choose(self, selector, value):
        """Choose an option of a select box, as the box itself reports it."""
        place = f"document.querySelector({json.dumps(selector)})"
        fire = "['input', 'change'].forEach((name) => box.dispatchEvent(new Event(name, {bubbles: true})))"
        self.evaluate(f"(() => {{ const box = {place}; box.value = {json.dumps(value)}; {fire}; }})()")

    def count_shown(self, selector):
        """How many of the elements that fit are laid out; asked of the document's layout, which needs no script."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        found = self._call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
        return sum(self._is_laid_out(node) for node in found)

    def _is_laid_out(self, node):
        try:
            return bool(self._call("DOM.getBoxModel", nodeId=node)["model"]["height"])
        except RuntimeError:  # "Could not compute box model": the element has none
            return False

    def complaints(self):
        """Uncaught errors and logged ones since the page was opened."""
        self.evaluate("1")
        return [event for event in self._events if event.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}]

    def requests(self):
        """Addresses that were asked for since the page was opened."""
        sent = [event for event in self._events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def picture(self, path, *, whole=False):
        """Save what is seen, or the whole page, as PNG."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
