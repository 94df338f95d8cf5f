"""A headless Chromium, driven over its DevTools protocol: enough for looking at one page."""
import base64
import itertools
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

from websockets.sync.client import connect

START_S = 120  # only a hang comes near it
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--hide-scrollbars", "--remote-debugging-port=0"]


def chromium():
    """Its path, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """Ends with all its processes: they are children of one that is killed, and die with its pipes."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="mc-browser-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [chromium(), *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = self._port()
        self.pages = []

    def _port(self):
        path, end = pathlib.Path(self.folder.name, "DevToolsActivePort"), time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            if path.exists() and path.read_text().count("\n") >= 1:
                return int(path.read_text().split()[0])
            time.sleep(0.02)
        self.close()
        raise AssertionError("the browser does not start")

    def page(self, url, width, height, dark=False, phone=False):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=START_S) as response:
            told = json.load(response)
        page = Page(told["webSocketDebuggerUrl"])
        self.pages.append(page)
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        page.ask("Emulation.setFocusEmulationEnabled", enabled=True) # no tab sleeps behind another one
        for domain in ("Page", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        page.ask("Page.navigate", url=url)
        page.until("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page

    def close(self):
        for page in getattr(self, "pages", ()):
            page.line.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.folder.cleanup()


class Page:
    """One tab. What it complains of is kept in `errors`."""

    def __init__(self, url):
        self.line = connect(url, max_size=64 << 20, open_timeout=START_S)
        self.numbers = itertools.count(1)
        self.errors = []

    def _note(self, told):
        method, what = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(what["exceptionDetails"])[:600])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(what["args"])[:600])
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")

    def ask(self, method, **params):
        number = next(self.numbers)
        self.line.send(json.dumps({"id": number, "method": method, "params": params}))
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            told = json.loads(self.line.recv(timeout=START_S))
            if told.get("id") != number:
                self._note(told)
            elif "error" in told:
                raise AssertionError(f"{method}: {told['error']}")
            else:
                return told["result"]
        raise AssertionError(f"{method}: no answer")

    def value(self, expression):
        """Of a JavaScript expression, as JSON has it."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise AssertionError(f"{expression}: {json.dumps(told['exceptionDetails'])[:600]}")
        return told["result"].get("value")

    def until(self, expression, seconds=60.0):
        """Look until it is true; its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.value(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {expression}\n{self.value('document.body.innerText')[:3000]}")
            time.sleep(0.03)

    def screenshot(self, path, whole=False):
        """PNG of what is seen, or of the whole page."""
        picture = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_bytes(base64.b64decode(picture))
