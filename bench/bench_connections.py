#!/usr/bin/env python3
"""What a connection costs the gateway: RSS of thousands that are idle, then of as many with a request.

    bench/bench_connections.py [--connections 5000] [--json FILE]

Opens the connections, asks /health on each and leaves it open; asks on all of them again; then begins a streamed
completion on each and looks while they are under way. At the end all hang up, and the gateway must have let go of
everything. The binary is build/release/mooncake unless MC_TEST_BINARY says otherwise; descriptors: twice the
connections and some.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from cluster import ByHand, stats, until  # noqa: E402 (needs the path above)

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"prompt": "hello", "max_tokens": 80, "ignore_eos": true, "stream": true}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def rss(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) << 10


def say(text):
    print(text, file=sys.stderr, flush=True)


def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def ask_all(socks):
    begin = time.monotonic()
    for sock in socks:
        sock.sendall(GET)
    for sock in socks:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    return time.monotonic() - begin


def measure(cluster, count):
    """Bytes of RSS for each idle connection and each one under way; seconds to answer all again."""
    pid = cluster.roles["gateway"].pid
    for _ in range(3):
        assert cluster.client.complete("hello", max_tokens=2).status == 200
    before, descriptors = rss(pid), len(os.listdir(f"/proc/{pid}/fd"))
    socks = []
    for _ in range(count):
        socks.append(connect(cluster.address))
        ask_all(socks[-1:])
    idle = (rss(pid) - before) / count
    again = ask_all(socks)
    for sock in socks:
        sock.sendall(POST)
    active = until(lambda: enough(cluster, count), "nearly all are under way", 60)
    busy = (rss(pid) - before) / active
    for sock in socks:
        sock.close()
    until(lambda: stats(cluster.control)["gateway_http_connections"] == 0, "all are gone", 60)
    until(lambda: stats(cluster.control)["gateway_requests_active"] == 0, "nothing is under way", 60)
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors, "descriptors are back", 10)
    return idle, busy, again


def enough(cluster, count):
    active = stats(cluster.control)["gateway_requests_active"]
    return active if active >= 0.95 * count else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--json", help="where figures go")
    options = parser.parse_args()
    count = options.connections
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cluster = ByHand(gateway=[f"--requests={count + 10}", f"--connections={count + 100}", "--patience=60s"],
                     worker=["--sequences=4096", f"--queue={count + 1000}", "--kv-memory=512M",
                             "--threads=1", "--context=256"])
    try:
        idle, busy, again = measure(cluster, count)
    finally:
        cluster.end()
    say(f"{count} connections: idle {idle:.0f} B each, with a request {busy:.0f} B each; all asked again in {again:.2f} s")
    if options.json:
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True,
                                check=True, text=True).stdout.strip()
        rows = [{"case": f"connection {case}", "metric": metric, "unit": unit, "value": value, "n": count}
                for case, metric, unit, value in (("idle", "rss", "B", idle), ("with a request", "rss", "B", busy),
                                                  ("idle", "throughput", "requests/s", count / again))]
        figures = {"bench": "connections", "command": " ".join(["bench/bench_connections.py", *sys.argv[1:]]),
                   "commit": commit, "machine": f"{os.cpu_count()} processors, {platform.release()}",
                   "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
