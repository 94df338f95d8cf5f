"""The live page in a headless browser: what happens is seen, at both widths, in both colour schemes.

Pictures are kept in build/page/, to be looked at.
"""
import json
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
    assert view.value("!document.querySelector('#no-requests').hidden")
    assert f"curl -N http://{served.address}/v1/completions" in view.value("document.querySelector('.curl').textContent")
    cards = view.until("document.querySelectorAll('.card').length >= 3 && document.querySelector('#cards').innerText")
    assert "prefill-1" in cards and "decode-1" in cards and "Pool node 1" in cards
    assert "Nothing was refused" in view.value("document.body.innerText")
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
    connection, response = served.client.post({"prompt": PROMPT, "max_tokens": 1500, "stream": True, "ignore_eos": True})
    view.until("state.stages[4] === 1 && [...state.requests.values()].some(r => r.stage === 'decode' && r.output > 3)")
    assert "Decode" in view.until("document.querySelector('#rows tr td.stage').innerText")
    for name, each in views.items():
        check_layout(each, name)
        each.screenshot(PICTURES / f"{name}.png", whole="phone" in name)
    response.close()
    connection.close()
    view.until("state.stages[4] === 0 && [...state.requests.values()].some(r => r.how === 'client_left')")


def test_refusals_are_shown_with_their_reason(served, views):
    view = views["phone-light"]
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
