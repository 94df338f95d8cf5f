"""The live page in a headless browser: what happens is seen, at both widths, in both colour schemes.

Pictures are kept in build/page/, to be looked at.
"""
import http.server
import json
import queue
import re
import threading

import pytest

from cluster import ByHand, Process, until
from conftest import MODEL, ROOT

try:
    from browser import Browser, chromium
except ImportError: # websockets
    pytest.skip("websockets is not installed: make deps", allow_module_level=True)
if not chromium():
    pytest.skip("no chromium: make deps installs it", allow_module_level=True)

PICTURES = ROOT / "build" / "page"
VIEWS = {"desktop-light": (1440, 900, False, False), "desktop-dark": (1440, 900, True, False),
         "phone-light": (390, 844, False, True), "phone-dark": (390, 844, True, True)}
READY = "document.querySelector('#status').dataset.is === 'ready'"
PROMPT = "Each of these words is in a block of the pool, where the next prompt that begins with them finds it again. "
SECRET = "Zanzibar"


@pytest.fixture(name="served", scope="module")
def serve():
    cluster = ByHand(gateway=("--requests=24",))
    yield cluster
    cluster.end()


@pytest.fixture(name="browser", scope="module")
def run_browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(name="views", scope="module")
def open_views(served, browser):
    """The page as people have it open, before anything has happened."""
    views = {}
    for name, (width, height, dark, phone) in VIEWS.items():
        views[name] = browser.page(f"http://{served.address}/", width, height, dark=dark, phone=phone)
    for view in views.values():
        view.until(READY)
    return views


def watch_stages(view):
    """Let the page keep which stages its table and its dots ever showed."""
    view.value("""(() => {
        window.seen = new Set(); window.dotted = new Set();
        const plain = take;
        take = (event, told) => {
            for (const r of told.requests || []) seen.add(r.stage);
            plain(event, told);
        };
        setInterval(() => { for (const dot of dots.values()) dotted.add(dot.at); }, 40);
    })()""")


def counters(served):
    status, text = served.client.get("/metrics")
    assert status == 200
    return {name: int(float(value)) for name, value in re.findall(r"^mooncake_gateway_(\S+) (\S+)$", text, re.M)}


def check_layout(view, name):
    wide, inner = view.value("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner, f"{name} scrolls sideways: {wide} > {inner}"
    out = view.value("""[...document.querySelectorAll('main *, header *')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1) && !e.closest('.unseen, pre, svg');
    }).map(e => e.outerHTML.slice(0, 120)).slice(0, 5)""")
    assert not out, f"{name}: beyond the edge: {out}"


def test_before_the_first_request_the_page_says_how_to_send_one(served, views):
    view = views["desktop-light"]
    view.until("!document.querySelector('#no-requests').hidden")  # drawn a frame after it was told
    assert f"curl -N http://{served.address}/v1/completions" in view.value("document.querySelector('.curl').textContent")
    cards = view.until("document.querySelectorAll('.card').length >= 3 && document.querySelector('#cards').innerText")
    assert "prefill-1" in cards and "decode-1" in cards and "Pool node 1" in cards
    view.until("document.body.innerText.includes('Nothing was refused')")
    view.screenshot(PICTURES / "empty.png", whole=True)


def test_requests_go_their_way_and_end(served, views):
    view = views["desktop-light"]
    watch_stages(view)
    answers = []

    def ask(i):
        answers.append(served.client.complete(PROMPT * (1 + i % 4) + SECRET, max_tokens=24, stream=i % 2 == 0))

    for turn in range(3):
        threads = [threading.Thread(target=ask, args=(turn * 6 + i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status for answer in answers] == [200] * 18
    for each in views.values():
        each.until("state.counters.requests_ended.length + state.counters.requests_ended.stop === 18")
    rows = view.until("document.querySelectorAll('#rows tr').length >= 16 && document.querySelector('#rows').innerText")
    assert "Done" in rows and "prefill-1 → decode-1" in rows and " reused" in rows
    assert "done" in view.value("[...seen]")
    view.until("['queue', 'pull', 'prefill', 'hand_off', 'decode', 'done'].every(stage => dotted.has(stage))")
    reused = sum(answer.usage["prompt_tokens_details"]["cached_tokens"] for answer in answers if answer.usage)
    assert reused > 0 and view.value("state.counters.reused_tokens") >= reused


def test_what_it_shows_is_what_the_metrics_say(served, views):
    told = counters(served)
    view = views["desktop-light"]
    view.until(f"state.counters.output_tokens === {told['output_tokens_total']}")
    shown = view.value("state.counters")
    for name in ("requests", "prompt_tokens", "reused_tokens", "output_tokens"):
        assert shown[name] == told[f"{name}_total"], name
    assert shown["pulled"] == told["pulled_bytes_total"] and shown["pushed"] == told["pushed_bytes_total"]
    assert shown["requests_ended"]["length"] == told['requests_ended_total{how="length"}']
    assert sum(view.value("state.stages")) == 0
    figures = view.value("document.querySelector('#tiles').innerText")
    assert "Prompts reused" in figures and "%" in figures


def test_a_long_answer_is_seen_while_it_is_decoded(served, views):
    view = views["phone-dark"]
    connection, response = served.client.post({"prompt": PROMPT, "max_tokens": 3900, "stream": True, "ignore_eos": True})
    view.until("state.stages[4] === 1 && [...state.requests.values()].some(r => r.stage === 'decode' && r.output > 3)")
    view.until("document.querySelector('#rows tr td.stage').innerText.includes('Decode')")
    for name, each in views.items():
        check_layout(each, name)
        each.screenshot(PICTURES / f"{name}.png", whole="phone" in name)
    response.close()
    connection.close()
    view.until("state.stages[4] === 0 && [...state.requests.values()].some(r => r.how === 'client_left')")


def test_refusals_are_shown_with_their_reason(served, views):
    view = views["phone-light"]
    until(lambda: counters(served)["requests_active"] == 0, "the ones before to have left")
    open_ones = [served.client.post({"prompt": "x", "max_tokens": 3000, "stream": True, "ignore_eos": True}) for _ in range(24)]
    assert [response.status for _, response in open_ones] == [200] * 24
    refused = served.client.complete("one too many", max_tokens=1)
    assert refused.status == 429
    for connection, response in open_ones:
        response.close()
        connection.close()
    until(lambda: counters(served)["requests_active"] == 0, "all to have left")
    served.client.post({"prompt": SECRET, "n": 7})[0].close()
    said = view.until("/slow down/.test(refusals.innerText) && /unsupported/.test(refusals.innerText) && refusals.innerText")
    assert "as many as are taken" in said and "field n" in said
    view.until("state.stages.every(n => n === 0)")


def test_no_prompt_and_no_answer_is_in_what_watchers_are_told(served):
    connection = served.client.connect()
    connection.request("GET", "/live")
    response = connection.getresponse()
    assert response.getheader("Content-Type").startswith("text/event-stream")
    lines = [response.readline() for _ in range(2)]
    connection.close()
    assert lines[0] == b"event: snapshot\n"
    told = json.loads(lines[1][len("data: "):])
    assert len(told["requests"]) > 18 and SECRET.encode() not in lines[1] and b"Each of these" not in lines[1]


def test_a_request_can_be_sent_from_the_page(views):
    view = views["desktop-dark"]
    view.value("document.querySelector('#send').click()")
    said = view.until("/tokens; /.test(document.querySelector('#try-says').textContent) && document.querySelector('#try-says').textContent")
    assert "reused" in said and view.value("document.querySelector('#answer').textContent.length") > 0


def test_nothing_is_loaded_from_elsewhere_and_nobody_complains(served, views):
    for name, view in views.items():
        view.value("1") # takes in what was said meanwhile
        assert not view.errors, f"{name}: {view.errors}"
        loaded = view.value("performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)")
        assert set(loaded) <= {"/live", "/v1/completions"}, loaded
    view = views["desktop-light"]
    unnamed = view.value("""[...document.querySelectorAll('button, input, textarea, section, table')].filter(e => {
        const label = document.getElementById(e.getAttribute('aria-labelledby'));
        return !(e.textContent.trim() || e.getAttribute('aria-label') || label || e.labels?.length);
    }).map(e => e.outerHTML.slice(0, 100))""")
    assert not unnamed, unnamed
    assert served.client.get("/")[1].count("src=") == 0


class Feed:
    """The page with a stream of the test's own behind it: what no small cluster shows in seconds."""

    def __init__(self, page, key=None):
        feed = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path == "/":
                    self.answer(200, "text/html; charset=utf-8", page)
                elif key and self.headers.get("Authorization") != f"Bearer {key}":
                    self.answer(401, "application/json", b"{}")
                else:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    for event in iter(feed.events.get, None):
                        self.wfile.write(event)

            def answer(self, status, kind, body):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.events = queue.Queue()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def say(self, event, **told):
        self.events.put(f"event: {event}\ndata: {json.dumps(told)}\n\n".encode())

    def end(self):
        self.events.put(None)
        self.server.shutdown()
        self.server.server_close()


def record(n, **more):
    return {"n": n, "at": 200 * n, "id": f"req-{n}", "known": True, "kind": "chat", "stage": "decode", "prompt": 400, "reused": 160,
            "output": n % 40, "pulled": 4096, "pushed": 65536, "predicted": 21000, "ttft": 20000, "tries": 0, "since": 200 * n,
            "spent": [2000, 1000, 16000, 1000, 0], "from": "prefill-1", "to": "decode-1", **more}


def snapshot(**more):
    """As docs/live-page.md has it."""
    return {"now": 1000, "gateway": {"model": "m", "version": "0", "state": "ready", "started": 0, "context": 4096,
            "requests_max": 8, "pool": True, "policy": "default"}, "stages": [0, 0, 0, 0, 0], "workers": {"list": [], "count": 0},
            "nodes": {"list": [], "count": 0}, "refusals": [], "counters": {}, "minute": {"ttft": [0, 0, 0], "tbt": [0, 0, 0]},
            "seconds": [], "requests": [], **more}


def test_a_key_is_asked_for_and_kept_in_the_tab(served, browser):
    feed = Feed(served.client.get("/")[1].encode(), key="right")
    view = browser.page(f"http://{feed.address}/", 390, 844)
    give = "document.querySelector('#key-text').value = '%s'; document.querySelector('#key button').click()"
    view.until("!document.querySelector('#key').hidden && document.querySelector('main').hidden")
    view.screenshot(PICTURES / "key.png")
    view.value(give % "wrong")
    view.until("/does not know this key/.test(document.body.innerText)")
    feed.say("snapshot", **snapshot())
    view.value(give % "right")
    view.until(READY)
    assert view.value("document.querySelector('#key').hidden && !document.querySelector('main').hidden")
    view.value("window.old = 1")
    view.ask("Page.reload")  # answered before the old page is gone

    def watches(): # whoever served the tab before takes some with it
        feed.say("snapshot", **snapshot())
        try:
            return view.value("window.old === undefined && typeof state === 'object' && state.gateway !== null")
        except AssertionError:  # between two pages
            return False

    until(watches, "the page to watch without asking again")
    assert view.value("document.querySelector('#key').hidden")
    feed.end()


def test_hours_of_traffic_leave_the_page_as_small_as_it_was(served, browser):
    feed = Feed(served.client.get("/")[1].encode())
    view = browser.page(f"http://{feed.address}/", 1440, 900)
    evil = "<img src=x onerror=alert(1)>"
    times = {"ttft": [20000, 30000, 40], "tbt": [900, 1500, 400]}
    second = {"arrived": 40, "finished": 39, "refused": 1, "failed": 0, "good": 37, "prompt": 16000, "reused": 6400, "output": 440,
              "pulled": 100000, "pushed": 2600000, **times}
    ended = {"stop": 0, "length": 0, "refused": 0, "client_left": 0, "failed": 0}
    feed.say("snapshot", **snapshot())
    for i in range(1, 1200): # twenty minutes at 40 requests a second
        told = [record(40 * i + j, stage="done", total=90000, how="length", reason="", **{"from": evil}) for j in range(39)]
        told.append(record(40 * i + 39, stage="done", slo=[50000, 2000], total=100, how="refused", reason="ttft_slo"))
        feed.say("change", now=1000 * i, minute=times, seconds=[{"n": i, **second}], requests=told,
                 counters={"requests": 40 * i, "requests_ended": {**ended, "length": 39 * i, "refused": i},
                           "requests_active": 3},
                 refusals=[{"reason": "ttft_slo", "count": i, "last": 1000 * i, "text": evil}])
    view.until("state.now === 1199000 && document.querySelectorAll('#rows tr').length === 16")
    assert view.value("state.requests.size") <= 256 and view.value("state.seconds.length") == 60
    assert view.value("document.querySelectorAll('*').length") < 1200
    view.until("dots.size === 0 || dots.size <= 72")
    said = view.value("document.querySelector('#tiles').innerText")
    assert "Within both SLOs" in said and "94.9" in said # 37 of 39
    assert "ttft slo" in view.value("document.querySelector('#refusals').innerText")
    assert evil in view.value("document.querySelector('#rows').innerText") and view.value("document.querySelectorAll('img').length") == 0
    view.value("document.querySelector('#pause').click(); document.querySelector('#more').click()")
    view.until("document.querySelectorAll('#rows tr').length === 60 && /held/.test(document.querySelector('#requests-say').textContent)")
    check_layout(view, "busy")
    assert not view.errors, view.errors
    view.screenshot(PICTURES / "busy.png")
    feed.end()


def test_the_page_outlives_the_gateway(browser):
    gateway = Process("gateway", "--listen=127.0.0.1:0", "--control=127.0.0.1:0", MODEL)
    address = gateway.said["address"]
    view = browser.page(f"http://{address}/", 390, 844, dark=True, phone=True)
    view.until("document.querySelector('#status').dataset.is === 'no_workers'")
    view.until("/No worker is registered/.test(document.body.innerText)")
    started = view.value("state.gateway.started")
    gateway.kill()
    view.until("document.querySelector('#status').dataset.is === 'lost' && document.querySelector('main').classList.contains('stale')")
    said = view.until("!notice_element.hidden && notice_element.innerText".replace("notice_element", "document.querySelector('#notice')"))
    assert "does not answer" in said
    check_layout(view, "lost")
    view.screenshot(PICTURES / "lost.png")
    gateway = Process("gateway", f"--listen={address}", "--control=127.0.0.1:0", MODEL)
    view.until("document.querySelector('#status').dataset.is === 'no_workers' && document.querySelector('#notice').hidden")
    assert view.value("state.gateway.started") >= started
    assert view.value("!document.querySelector('main').classList.contains('stale')")
    gateway.end()
