"""A Chromium that is driven over its debugging port: pages are drawn, measured and pointed at as a reader does."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import websocket

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
# with the network off, so that nothing can come from it
FLAGS += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
# a small shared memory (containers), pages of a first run and a desktop's keyring can each keep it from starting
FLAGS += ["--disable-dev-shm-usage", "--no-first-run", "--disable-component-update", "--disable-sync"]
FLAGS += ["--password-store=basic", "--use-mock-keychain", "--disable-breakpad"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


def find() -> str | None:
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Page:
    """One tab: what it is told, and what it said, asked for and failed at since it was opened."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(address, timeout=120, skip_utf8_validation=True)
        self.number, self.messages, self.requests = 0, [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while (found := self._receive()).get("id") != self.number:
            pass
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        return found["result"]

    def _receive(self) -> dict:
        message = json.loads(self.socket.recv())
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled":
            words = [str(part.get("value", part.get("description", ""))) for part in params["args"]]
            self.messages.append(f"{params['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(f"Uncaught {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded":
            self.messages.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    def evaluate(self, script: str):
        """The value of an expression, waited for if it is a promise."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.send("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "failed")[:500])
        return found["result"].get("value")

    def open(self, address: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load a page in a window of some width, and draw all that it draws."""
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=media)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.messages, self.requests = [], []
        failed = self.send("Page.navigate", url=address).get("errorText")
        if failed:
            raise RuntimeError(f"{address}: {failed}")
        ready = "document.readyState === 'complete' && location.href !== 'about:blank'"
        for _ in range(600):
            if self.evaluate(ready):
                break
            time.sleep(0.05)
        status = self.evaluate("performance.getEntriesByType('navigation')[0].responseStatus")
        if status >= 400:
            raise RuntimeError(f"{address}: status {status}")
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.evaluate("document.documentElement.style.scrollBehavior = 'auto'; window.drawCharts?.()")

    def point(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_CODES[key])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address at which a server of this machine has a folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words) -> None:
        pass


_CODES = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Escape": 27}


@contextmanager
def page() -> Iterator[Page]:
    """A tab of a browser of its own, without a network."""
    with _started() as address:
        with closing(websocket.create_connection(address, timeout=60)) as root:
            root.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
            while "result" not in (answer := json.loads(root.recv())):
                pass
            base = address.partition("/devtools/")[0]
            tab = Page(f"{base}/devtools/page/{answer['result']['targetId']}")
            with closing(tab.socket):
                yield tab


@contextmanager
def _started(attempts: int = 3) -> Iterator[str]:
    """Address of a browser's debugging port. One that does not tell it is started anew: Chromium was seen to hang
    while it started, once in some hundred times, on a loaded machine."""
    for _ in range(attempts):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, tempfile.TemporaryFile() as said:
            command = [find(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
            try:
                if address := _address(process, Path(profile, "DevToolsActivePort")):
                    yield address
                    return
                said.seek(0)
                words = said.read().decode(errors="replace")[-2000:]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
                process.wait()
    raise RuntimeError(f"{command[0]} was started {attempts} times and opened no debugging port; it said: {words}")


def _address(process: subprocess.Popen, port: Path) -> str | None:
    """What a browser writes as soon as it listens; None if it ends before, or says nothing for 40 seconds."""
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        if port.is_file() and len(words := port.read_text().split()) == 2:
            return f"ws://127.0.0.1:{words[0]}{words[1]}"
        time.sleep(0.05)
    return None
