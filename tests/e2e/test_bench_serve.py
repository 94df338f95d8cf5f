"""mooncake bench serve as a user runs it: against `mooncake serve`, and against servers that misbehave."""
import csv
import http.server
import json
import signal
import threading
import time
import xml.dom.minidom

import pytest

from cluster import Served, until
from conftest import mooncake, start

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23,
         "prompt_tokens_details": {"cached_tokens": 16}}


def write_trace(path, requests, spacing_ms=100):
    """Requests of two and a half blocks; every other one shares the first two with those before it."""
    lines = []
    for i in range(requests):
        own = 1000 + 10 * i
        ids = [1, 2, own] if i % 2 else [own, own + 1, own + 2]
        lines.append(json.dumps({"timestamp": i * spacing_ms, "input_length": 1280,
                                 "output_length": 96, "hash_ids": ids}))
    path.write_text("\n".join(lines) + "\n")
    return path


def bench(url, *arguments, **variables):
    return mooncake("bench", "serve", "--url", url, *map(str, arguments), **variables)


def rows_of(path):
    return {row["metric"]: row for row in json.loads(path.read_text())["rows"]}


def counts(path):
    rows = rows_of(path)
    sent, answered, refused, failed, abandoned = (
        int(rows[name]["value"]) for name in ("sent", "answered", "refused", "failed", "abandoned"))
    assert sent == answered + refused + failed + abandoned
    return {"sent": sent, "answered": answered, "refused": refused, "failed": failed,
            "abandoned": abandoned}


# ------------------------------------------------------------------------------ a real server


@pytest.fixture(scope="module")
def served():
    cluster = Served()
    yield cluster
    assert cluster.end() == 0


def test_a_trace_is_sent_at_its_times_and_told_in_all_forms(served, tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", 12)
    done = bench(f"http://{served.address}", "--trace", trace, "--speed", "2", "--slo-ttft", "20s",
                 "--slo-tbt", "5s", "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv",
                 "--svg", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr.decode()
    assert b"12 sent = 12 answered + 0 refused + 0 failed" in done.stdout
    assert counts(tmp_path / "a.json")["answered"] == 12
    rows = rows_of(tmp_path / "a.json")
    assert rows["met both objectives"]["value"] == 1
    assert rows["answers of another length"]["value"] == 0
    assert 0 < rows["TTFT p50"]["value"] <= rows["TTFT p99"]["value"] <= rows["TTFT max"]["value"]
    hits = rows["hit ratio"]
    # Requests 4, 6, ... 12 share two of their 40 tokens' two pages with the second one.
    assert hits["peer_value"] == pytest.approx(5 * 32 / (12 * 40), abs=1e-5)
    assert 0 <= hits["value"] <= hits["peer_value"]
    with open(tmp_path / "a.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["number"]) for line in sorted(lines, key=lambda line: int(line["number"]))] == \
        list(range(1, 13))
    for line in lines:
        assert line["outcome"] == "answered" and line["input_tokens"] == line["prompt_tokens"] == "40"
        assert line["wanted_tokens"] == line["output_tokens"] == "3"
        assert float(line["due_s"]) == pytest.approx((int(line["number"]) - 1) * 0.05)
        assert float(line["sent_s"]) >= float(line["due_s"])
        assert line["prefill"] and line["request_id"]
    xml.dom.minidom.parse(str(tmp_path / "a.svg"))


def test_so_many_at_once_and_no_more(served, tmp_path):
    done = bench(f"http://{served.address}", "--concurrency", 3, "--limit", 12, "--input-tokens", 40,
                 "--shared-prefix", 33, "--output-tokens", 4, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    assert counts(tmp_path / "a.json")["answered"] == 12
    rows = rows_of(tmp_path / "a.json")
    assert rows["most in flight"]["value"] == 3
    assert "sent late p50" not in rows  # nothing is due in a closed loop
    assert rows["hit ratio"]["value"] > 0


def test_a_rate_is_kept(served, tmp_path):
    done = bench(f"http://{served.address}", "--rate", 20, "--duration", "1s", "--input-tokens", 20,
                 "--output-tokens", 2, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    assert 5 <= counts(tmp_path / "a.json")["sent"] <= 45
    assert "sent late p99" in rows_of(tmp_path / "a.json")


def test_chats_are_text(served, tmp_path):
    done = bench(f"http://{served.address}", "--endpoint", "chat", "--concurrency", 1, "--limit", 2,
                 "--input-tokens", 20, "--output-tokens", 2, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    assert counts(tmp_path / "a.json")["answered"] == 2


def test_prompts_over_the_context_are_cut_and_counted(served, tmp_path):
    done = bench(f"http://{served.address}", "--concurrency", 2, "--limit", 2, "--input-tokens", 1000,
                 "--output-tokens", 8, "--context", 100, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    rows = rows_of(tmp_path / "a.json")
    assert rows["cut to the context"]["value"] == 2
    assert b"cut to fit the context: 2" in done.stdout


def answers_of(served):
    return sum(value for name, value in served.stats("gateway").items()
               if name.startswith('gateway_requests_ended{how="length"'))


def test_an_interrupt_ends_with_the_report_so_far(served):
    process = start("bench", "serve", "--url", f"http://{served.address}", "--rate", "2", "--duration",
                    "1h", "--input-tokens", "20", "--output-tokens", "2")
    before = answers_of(served)
    try:
        until(lambda: answers_of(served) > before + 1, "answers to the load")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b" sent = " in out and b"THESE DO NOT ADD UP" not in out


# ------------------------------------------------------------------------- servers that misbehave


class Handler(http.server.BaseHTTPRequestHandler):
    """A server that answers as its owner says: `plan(number)` for each completion, from 1."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, code, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._answer(401, {"error": {"message": "wrong key", "code": "invalid_api_key"}})
        else:
            self._answer(200, {"data": [{"id": "fake", "max_model_len": 4096}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not body.get("stream"):  # the bench asks which ids there are
            self._answer(200, {"choices": [{"text": "x"}]})
            return
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
            self.server.bodies.append(body)
            self.server.seen.append(dict(self.headers))
        self.server.plan(self, number)

    def stream(self, events, end=b"data: [DONE]\n\n", cut=False):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
        if not cut:
            self.wfile.write(end)
        self.close_connection = True

    def good(self):
        token = {"choices": [{"text": " a", "finish_reason": None}]}
        self.stream([token, token, token, {"choices": [], "usage": USAGE}])

    def refuse(self, code=429, name="slow_down", headers=(("retry-after-ms", "40"),)):
        self._answer(code, {"error": {"message": "not now", "code": name}}, headers)


class Fake:
    """Handler behind a free port."""

    def __init__(self, plan, key=None):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.plan, self.server.key, self.server.count = plan, key, 0
        self.server.lock, self.server.bodies, self.server.seen = threading.Lock(), [], []
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


FEW = ["--concurrency", 2, "--limit", 8, "--input-tokens", 20, "--output-tokens", 3]


def test_a_server_that_keeps_to_the_rules(tmp_path):
    with Fake(lambda handler, number: handler.good()) as fake:
        done = bench(fake.url, *FEW, "--json", tmp_path / "a.json", "--send-slo", "--slo-ttft", "1500ms",
                     "--slo-tbt", "50ms", MC_API_KEY="secret")
        assert done.returncode == 0, done.stderr.decode()
        again = bench(fake.url, *FEW)
        assert again.returncode == 0
    rows = rows_of(tmp_path / "a.json")
    assert rows["hit ratio"]["value"] == pytest.approx(16 / 20)
    assert rows["output rate"]["n"] == 8
    body, seen = fake.server.bodies[0], fake.server.seen[0]
    assert body["model"] == "fake" and body["ignore_eos"] is True and body["max_tokens"] == 3
    assert len(body["prompt"]) == 20 and body["stream_options"] == {"include_usage": True}
    assert seen["x-slo-ttft-ms"] == "1500" and seen["x-slo-tpot-ms"] == "50"
    assert seen["Authorization"] == "Bearer secret" and "Expect" not in seen
    prompts = [tuple(body["prompt"]) for body in fake.server.bodies]
    assert sorted(prompts[:8]) == sorted(prompts[8:])  # the same seed asks the same
    assert len(set(prompts)) == 8


def test_refusals_are_told_by_their_reason(tmp_path):
    plans = [lambda h: h.refuse(), lambda h: h.refuse(503, "overloaded"), lambda h: h.refuse(529, "busy"),
             lambda h: h.refuse(503, "no_workers"), lambda h: h.refuse(headers=(
                 ("Retry-After", "7"), ("X-Mooncake-Refused", "ttft_slo")))]
    with Fake(lambda handler, number: plans[number % 5](handler)) as fake:
        done = bench(fake.url, "--concurrency", 1, "--limit", 10, "--json", tmp_path / "a.json")
    assert done.returncode == 1  # a server without workers has not refused, it has failed
    assert counts(tmp_path / "a.json") == {"sent": 10, "answered": 0, "refused": 8, "failed": 2,
                                           "abandoned": 0}
    rows = rows_of(tmp_path / "a.json")
    for reason in ("slow_down", "overloaded", "busy", "ttft_slo"):
        assert rows["refused: " + reason]["value"] == 2
    assert rows["failed: no_workers"]["value"] == 2
    assert rows["Retry-After max"]["value"] == 7000
    assert b"refused: " in done.stdout and b"slow_down 2" in done.stdout


def test_who_waits_gets_in_and_is_one_request(tmp_path):
    seen = set()

    def plan(handler, number):
        """Four requests are refused, each once: by their prompts, for the first may be back before the last comes."""
        with handler.server.lock:
            prompt = tuple(handler.server.bodies[number - 1]["prompt"])
            refused = prompt not in seen and len(seen) < 4
            if refused:
                seen.add(prompt)
        if refused:
            handler.refuse()
        else:
            handler.good()

    with Fake(plan) as fake:
        done = bench(fake.url, "--concurrency", 4, "--limit", 8, "--retry", 1, "--json",
                     tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    assert counts(tmp_path / "a.json")["answered"] == 8
    rows = rows_of(tmp_path / "a.json")
    assert rows["tried again"]["value"] == 4 and rows["got in then"]["value"] == 4
    assert fake.server.count == 12
    with Fake(lambda handler, number: handler.refuse()) as fake:
        done = bench(fake.url, "--concurrency", 4, "--limit", 40, "--retry", 3, "--retry-share", "0.5",
                     "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr.decode()
    assert counts(tmp_path / "b.json")["refused"] == 40
    retried = rows_of(tmp_path / "b.json")["tried again"]["value"]
    assert 8 <= retried <= 32 and fake.server.count == 40 + 3 * retried


@pytest.mark.parametrize("reason, plan", [
    ("cut_off", lambda h: h.stream([{"choices": [{"text": "a"}]}], cut=True)),
    ("worker_lost", lambda h: h.stream([{"choices": [{"text": "a"}]},
                                        {"error": {"message": "gone", "code": "worker_lost"}}], cut=True)),
    ("no_token", lambda h: h.stream([])),
    ("not_json", lambda h: h.stream([], end=b"data: {\"choices\":\n\n")),
    ("not_a_stream", lambda h: h._answer(200, {"choices": []})),
    ("http_500", lambda h: h._answer(500, b"oops")),
    ("context_length_exceeded", lambda h: h._answer(400, {"error": {"code": "context_length_exceeded"}})),
    ("http_404", lambda h: h._answer(404, b"")),
    ("no_connection", lambda h: h.connection.close()),
])
def test_what_is_no_answer_has_failed(tmp_path, reason, plan):
    def half(handler, number):
        if number % 2:
            handler.good()
        else:
            handler.close_connection = True
            plan(handler)

    with Fake(half) as fake:
        done = bench(fake.url, "--concurrency", 1, "--limit", 6, "--json", tmp_path / "a.json")
    assert done.returncode == 1
    assert counts(tmp_path / "a.json")["failed"] == 3, done.stdout.decode()
    assert rows_of(tmp_path / "a.json")["failed: " + reason]["value"] == 3


def test_a_server_that_dies_is_told(tmp_path):
    cluster = Served("--grace=1s")
    # Far more than are answered by then; what is left when nobody listens has failed at once.
    process = start("bench", "serve", "--url", f"http://{cluster.address}", "--concurrency", "4", "--limit",
                    "20000", "--duration", "1h", "--input-tokens", "20", "--output-tokens", "2", "--json",
                    str(tmp_path / "a.json"))
    try:
        until(lambda: answers_of(cluster) > 1, "answers to the load")
        cluster.end()
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    found = counts(tmp_path / "a.json")
    assert found["answered"] > 0 and found["failed"] > 0, out.decode()


def test_a_request_that_takes_too_long_has_failed(tmp_path):
    done_event = threading.Event()
    # The questions that the bench begins with have no more time than this.
    with Fake(lambda handler, number: done_event.wait(60)) as fake:
        done = bench(fake.url, "--concurrency", 1, "--limit", 1, "--timeout", "3s", "--json",
                     tmp_path / "a.json")
        done_event.set()
    assert done.returncode == 1
    assert rows_of(tmp_path / "a.json")["failed: timeout"]["value"] == 1


def test_what_waits_here_is_late(tmp_path):
    def plan(handler, number):
        time.sleep(0.1)
        handler.good()

    trace = write_trace(tmp_path / "t.jsonl", 6, spacing_ms=1)
    with Fake(plan) as fake:
        done = bench(fake.url, "--trace", trace, "--in-flight", 1, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr.decode()
    rows = rows_of(tmp_path / "a.json")
    assert rows["most in flight"]["value"] == 1
    assert rows["sent late max"]["value"] >= 490


# --------------------------------------------------------------------------------- wrong from the start


def test_a_bad_line_ends_the_sending_and_is_named(tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", 3, spacing_ms=1)
    trace.write_text(trace.read_text() + '{"timestamp": -5}\n')
    with Fake(lambda handler, number: handler.good()) as fake:
        done = bench(fake.url, "--trace", trace)
    assert done.returncode == 1
    assert b"t.jsonl:4: timestamp: -5 is negative" in done.stderr
    assert b"3 sent = 3 answered" in done.stdout


def test_what_cannot_begin_says_why(tmp_path):
    few = ["--concurrency", 1, "--limit", 1]
    done = bench("http://127.0.0.1:1", *few)
    assert done.returncode == 1 and b"http://127.0.0.1:1" in done.stderr
    for url in ("127.0.0.1 8000", "ftp://127.0.0.1", "http://", "http://h:p", "http://u@127.0.0.1", ""):
        done = bench(url, *few)
        assert done.returncode == 2, (url, done.stderr)
    with Fake(lambda handler, number: handler.good(), key="right") as fake:
        done = bench(fake.url, *few, "--api-key", "wrong")
        assert done.returncode == 1 and b"401: wrong key" in done.stderr
        assert bench(fake.url, *few, "--api-key", "right").returncode == 0
        done = bench(fake.url, *few, "--api-key", "right", "--model", "other")
        assert done.returncode == 1 and b"other" in done.stderr
        right = [fake.url, "--api-key", "right"]
        done = bench(*right, "--trace", tmp_path / "none.jsonl")
        assert done.returncode == 1 and b"none.jsonl" in done.stderr
        done = bench(*right, *few, "--json", tmp_path / "no" / "folder.json")
        assert done.returncode == 1 and b"folder.json" in done.stderr
        (tmp_path / "empty.jsonl").write_text("")
        done = bench(*right, "--trace", tmp_path / "empty.jsonl")
        assert done.returncode == 1 and b"no request in it" in done.stderr
    assert bench("http://127.0.0.1:1").returncode == 2
    help_text = mooncake("bench", "serve", "--help")
    assert help_text.returncode == 0 and b"--concurrency" in help_text.stdout


def test_the_key_is_not_in_the_figures(tmp_path):
    with Fake(lambda handler, number: handler.good(), key="hush") as fake:
        for given in (["--api-key", "hush"], ["--api-key=hush"]):
            done = bench(fake.url, *FEW, *given, "--json", tmp_path / "a.json")
            assert done.returncode == 0
            assert "hush" not in (tmp_path / "a.json").read_text()
