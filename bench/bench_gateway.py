#!/usr/bin/env python3
"""What the gateway itself costs: timing-free workers behind it, nginx as a reverse proxy beside it.

    bench/bench_gateway.py --json build/bench/gateway.json

Needs build/release/mooncake and stub-worker (target `bench`), nginx, wrk. In each round, one after the other: the
trivial upstream itself (nginx that returns a fixed answer: the floor), nginx as a reverse proxy before it
(kept alive both ways, unbuffered), and the gateway with stub-worker behind it, which has the very bytes of that
answer made: prompt checked and made tokens, block keys hashed, placed by the scheduler, pages reserved,
prefill and tokens taken from two workers, one message for each token, one log line. All answer one request of
    gateway whole     a completion of 16 tokens to a prompt of --prompt token ids
    gateway stream    the same, streamed: an event for each token, usage, [DONE]
    gateway chat      streamed, the prompt as text to be tokenized (a word for each token)
Rows: `added p50`, `added p99` (one connection, less the floor's), `rate per core` (--connections at once: requests
by processor seconds of the server's process; the stub's and the upstream's are not counted).
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))
from cluster import Process, until  # noqa: E402 (needs the path above)
from bench_path import say  # noqa: E402
from results import processor_ns, write  # noqa: E402

STUB = ROOT / "build" / "release" / "bench" / "stub-worker"
TOKENS = 16

NGINX = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log /dev/null; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  client_body_buffer_size 1m; keepalive_requests 1000000000; keepalive_timeout 600s; default_type {type};
  upstream there {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ {does} }}
  }}
}}
"""
PROXY = 'proxy_pass http://there; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;'

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
done = function(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format('result {{"n": %d, "p50_us": %d, "p99_us": %d, "errors": %d, "seconds": %f}}\\n',
    summary.requests, latency:percentile(50), latency:percentile(99),
    bad.connect + bad.read + bad.write + bad.status + bad.timeout, summary.duration / 1e6))
end
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Nginx:
    """One nginx of one worker process; `pid` is the worker's."""

    def __init__(self, folder, name, does, upstream=1, kind="application/json"):
        self.port = free_port()
        path = pathlib.Path(folder) / f"{name}.conf"
        path.write_text(NGINX.format(folder=folder, name=name, port=self.port, does=does,
                                     upstream=upstream, type=kind), encoding="utf-8")
        self.popen = subprocess.Popen(["nginx", "-c", str(path), "-e", "stderr"])
        until(lambda: answers(self.port), "nginx listens")
        children = f"/proc/{self.popen.pid}/task/{self.popen.pid}/children"
        self.pid = int(pathlib.Path(children).read_text(encoding="ascii").split()[0])

    def end(self):
        self.popen.terminate()
        self.popen.wait(30)


def request_of(kind, options):
    body = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    if kind == "chat":
        text = " ".join("cache" for _ in range(options.prompt))
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = [100 + i % 150 for i in range(options.prompt)]
    if kind != "whole":
        body.update(stream=True, stream_options={"include_usage": True})
    path = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
    return path, json.dumps(body).encode()


def answer_of(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text
    connection.close()
    return text, response.getheader("Content-Type")


def wrk(folder, port, path, body, connections, seconds):
    file, script = pathlib.Path(folder) / "body", pathlib.Path(folder) / "wrk.lua"
    file.write_bytes(body)
    script.write_text(WRK.format(body=file), encoding="utf-8")
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
                           str(script), f"http://127.0.0.1:{port}{path}"],
                          capture_output=True, text=True, check=True)
    line = [each for each in done.stdout.splitlines() if each.startswith("result ")][0]
    result = json.loads(line[7:])
    assert result["errors"] == 0, done.stdout
    return result


class Side:
    """A server under load, and what it was measured at."""

    def __init__(self, name, port, pid):
        self.name, self.port, self.pid = name, port, pid
        self.p50, self.p99, self.rate = [], [], []

    def measure(self, folder, path, body, options):
        alone = wrk(folder, self.port, path, body, 1, options.seconds)
        before = processor_ns(self.pid)
        many = wrk(folder, self.port, path, body, options.connections, options.seconds)
        used = (processor_ns(self.pid) - before) / 1e9
        self.p50.append(alone["p50_us"] / 1e6)
        self.p99.append(alone["p99_us"] / 1e6)
        self.rate.append(many["n"] / used)
        say(f"{self.name}: p50 {alone['p50_us']} us, p99 {alone['p99_us']} us; "
            f"{many['n'] / many['seconds']:.0f} requests/s, {many['n'] / used:.0f} by core")


def row(case, metric, unit, values, peers):
    value, peer = statistics.median(values), statistics.median(peers)
    return {"case": case, "metric": metric, "unit": unit, "value": value, "min": min(values),
            "max": max(values), "n": len(values), "peer": "nginx as a reverse proxy",
            "peer_value": peer, "ratio": value / peer if peer else None}


def compare(kind, gateway, folder, options):
    path, body = request_of(kind, options)
    text, content = answer_of(gateway.port, path, body)
    file = pathlib.Path(folder) / "answer"
    file.write_bytes(text)
    quoted = text.decode().replace("\\", "\\\\").replace("'", "\\'").replace("$", "")
    upstream = Nginx(folder, "upstream", f"return 200 '{quoted}';", kind=content.split(";")[0])
    proxy = Nginx(folder, "proxy", PROXY, upstream.port)
    sides = [Side("floor", upstream.port, upstream.pid), Side("nginx", proxy.port, proxy.pid),
             Side("gateway", gateway.port, gateway.pid)]
    try:
        assert len(answer_of(proxy.port, path, body)[0]) == len(text)
        for _ in range(options.rounds):
            for side in sides:
                side.measure(folder, path, body, options)
    finally:
        proxy.end()
        upstream.end()
    floor, nginx, own = sides
    case = f"gateway {kind}"
    return [row(case, "added p50", "s", [a - b for a, b in zip(own.p50, floor.p50)],
                [a - b for a, b in zip(nginx.p50, floor.p50)]),
            row(case, "added p99", "s", [a - b for a, b in zip(own.p99, floor.p99)],
                [a - b for a, b in zip(nginx.p99, floor.p99)]),
            row(case, "rate per core", "requests/s", own.rate, nginx.rate)]


def ready(address):
    """Whether a request would find workers."""
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "tiny-random"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--only", default="whole,stream,chat")
    parser.add_argument("--json")
    options = parser.parse_args()
    missing = [name for name in ("nginx", "wrk") if not shutil.which(name)]
    if missing or not STUB.exists():
        sys.exit(f"needs {' and '.join(missing + ([] if STUB.exists() else [str(STUB)]))}")
    gateway = Process("gateway", "--listen=127.0.0.1:0", "--control=127.0.0.1:0", options.model)
    stub = subprocess.Popen([STUB, "--gateway", gateway.said["control"], "--model", options.model,
                             "--each"], stdout=subprocess.PIPE)
    rows = []
    try:
        for _ in range(2):
            assert b"registered" in stub.stdout.readline()
        until(lambda: ready(gateway.said["address"]), "workers the gateway can place on")
        gateway.port = int(gateway.said["address"].rpartition(":")[2])
        for kind in options.only.split(","):
            with tempfile.TemporaryDirectory() as folder:
                rows += compare(kind, gateway, folder, options)
    finally:
        stub.terminate()
        stub.wait(30)
        gateway.end()
    write("gateway", rows, options.json)


if __name__ == "__main__":
    main()
