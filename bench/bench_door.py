#!/usr/bin/env python3
"""Refusing at the door: where requests begin to miss their objectives, and what comes of twice that load.

    bench/bench_door.py --json bench/results/DATE-door.json [--seconds 25] [--overload-seconds 120] [--retry-share 0.5]

One command, about eight minutes. `mooncake serve` (build/release) with a random model of 20 M parameters, requests
by a Poisson process from this process (open loop, raw sockets, streams). Rows (bench/README.md has the shape):
    slack        low load and slack objectives: refused requests (none)
    sweep L all  everything let in at L times the capacity: share that meets both objectives, goodput
    sweep L      the same with the door on
    overload     at 2 x the load where requests begin to miss: share of the accepted that meet both objectives,
                 goodput against the best of the sweep, clients that waited Retry-After and got in, and what is
                 predicted against what comes (from /metrics)
The objectives are multiples of what an idle server takes: --ttft-factor, --tbt-factor.
"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import platform
import random
import re
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from cluster import Served  # noqa: E402 (needs the path above)

MODEL = ROOT / "build" / "bench" / "model-door"
SHAPE = ("--preset tiny --hidden 512 --layers 6 --heads 8 --kv-heads 2 --head-dim 64 --intermediate 1536 "
         "--context 4096").split()


def say(text):
    print(text, file=sys.stderr, flush=True)


def make_model():
    if not (MODEL / "config.json").exists():
        MODEL.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(ROOT / "tools" / "make_checkpoint.py"), *SHAPE, str(MODEL)], check=True)


# ------------------------------------------------------------------------------------------ one request


class Result:
    """One client: its arrivals, each with a status; the last one's times."""

    def __init__(self, at):
        self.at, self.statuses, self.ttft, self.tbt, self.tokens = at, [], None, None, 0
        self.waits, self.back_in, self.reason, self.late = [], None, None, 0.0

    @property
    def ok(self):
        return bool(self.statuses) and self.statuses[-1] == 200 and self.tokens > 0


class Shapes:
    """Prompts of token ids, each used once; lengths and answers of a fixed mix."""

    def __init__(self, seed, shortest=64, longest=512):
        self.chance, self.shortest, self.longest = random.Random(seed), shortest, longest

    def body(self):
        count = int(self.shortest * (self.longest / self.shortest) ** self.chance.random())
        ids = [self.chance.randrange(10, 400) for _ in range(count)]
        out = self.chance.randrange(8, 25)
        return json.dumps({"prompt": ids, "max_tokens": out, "ignore_eos": True, "stream": True,
                           "temperature": 0}, separators=(",", ":")).encode()


async def ask(host, port, body, result):
    """Send, read the stream, note the times. The reply's headers."""
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    try:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                     b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in
                   (line.partition(":") for line in head[1:] if line)}
        first = last = None
        tokens = 0
        if status == 200:
            while True:
                line = await reader.readline()
                if not line or line.startswith(b"data: [DONE]"):
                    break
                if line.startswith(b'data: {"error"'):
                    status = 599
                elif line.startswith(b"data: ") and b'"text":' in line:
                    tokens += 1
                    last = time.monotonic()
                    first = first or last
        else:
            await reader.read()
        result.statuses.append(status)
        if status == 200 and first:
            result.ttft, result.tokens = first - begin, tokens
            result.tbt = (last - first) / (tokens - 1) if tokens > 1 else 0.0
        return status, headers
    finally:
        writer.close()


async def client(address, body, result, retries):
    """One request; `retries` times it waits as it is told and comes back."""
    host, port = address.rsplit(":", 1)
    try:
        while True:
            status, headers = await ask(host, int(port), body, result)
            if status != 429:
                break
            result.reason = headers.get("x-mooncake-refused")
            if retries == 0:
                break
            retries -= 1
            wait = float(headers["retry-after"])
            result.waits.append(wait)
            await asyncio.sleep(wait)
        if result.waits and len(result.statuses) > 1:
            result.back_in = result.statuses[1] == 200
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        result.statuses.append(598)
        result.reason = repr(error)


async def load(address, rate, seconds, seed, retry_share=0.0, tail=30.0):
    """Poisson arrivals. The results, and when the load began and ended."""
    shapes, chance = Shapes(seed), random.Random(seed + 1)
    results, tasks = [], []
    begin = at = time.monotonic()
    while True:
        at += chance.expovariate(rate)
        if at > begin + seconds:
            break
        body = shapes.body()
        retries = 1 if chance.random() < retry_share else 0
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        result = Result(at - begin)
        result.late = time.monotonic() - at
        results.append(result)
        tasks.append(asyncio.create_task(client(address, body, result, retries)))
    _, pending = await asyncio.wait(tasks, timeout=tail) if tasks else (None, ())
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return results


# -------------------------------------------------------------------------------------------- figures


def summary(results, seconds, slo):
    """Of those that arrived for the first time within the load; who came back later counts where it began."""
    done = [r for r in results if r.ok]
    first = [r for r in done if len(r.statuses) == 1]
    met = [r for r in done if r.ttft <= slo[0] and r.tbt <= slo[1]]
    backs = [r.back_in for r in results if r.back_in is not None]
    reasons = {}
    for r in results:
        if not r.ok or len(r.statuses) > 1:
            reasons[r.reason] = reasons.get(r.reason, 0) + 1
    ttfts = sorted(r.ttft for r in done) or [0.0]
    return {
        "sent": len(results), "done": len(done), "first": len(first),
        "refused": sum(r.statuses[-1:] == [429] for r in results),
        "failed": sum(bool(r.statuses) and r.statuses[-1] not in (200, 429) for r in results),
        "met_share": len(met) / len(done) if done else 1.0, "goodput": len(met) / seconds,
        "late": sum(r.ttft > slo[0] for r in done), "slow": sum(r.tbt > slo[1] for r in done),
        "back": len(backs), "back_in": sum(backs), "reasons": reasons,
        "waits": sorted(w for r in results for w in r.waits),
        "ttft_p50": ttfts[len(ttfts) // 2], "ttft_p90": ttfts[int(len(ttfts) * 0.9)],
        "tbt_p90": (sorted(r.tbt for r in done) or [0.0])[int(len(done) * 0.9)] if done else 0.0,
        "late_send_max": max((r.late for r in results), default=0.0),
    }


def tell(name, rate, s):
    waits = s["waits"]
    say(f"{name}: {rate:.1f}/s sent {s['sent']} done {s['done']} refused {s['refused']} failed {s['failed']} "
        f"met {s['met_share']:.3f} (late {s['late']}, slow {s['slow']}) goodput {s['goodput']:.2f}/s "
        f"ttft p50 {s['ttft_p50'] * 1e3:.0f} p90 {s['ttft_p90'] * 1e3:.0f} ms tbt p90 {s['tbt_p90'] * 1e3:.1f} ms "
        f"back {s['back_in']}/{s['back']} waits {waits[0] if waits else 0:.0f}..{waits[-1] if waits else 0:.0f} s "
        f"{s['reasons'] or ''} sent late by {s['late_send_max'] * 1e3:.0f} ms at most")


def metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^mooncake_gateway_(\S+) (\S+)$", text, re.M)}


def serve(options, *flags):
    served = Served("--kv-memory=512M", *flags, f"--threads={options.threads}", model=str(MODEL))
    end = time.monotonic() + 20
    while metrics(served.address).get("workers_measured_total", 0) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    return served


def run(served, name, rate, seconds, slo, seed, **more):
    results = asyncio.run(load(served.address, rate, seconds, seed, **more))
    s = summary(results, seconds, slo)
    tell(name, rate, s)
    return s


def row(case, metric, unit, value, n, **peer):
    return {"case": case, "metric": metric, "unit": unit, "value": value, "min": value, "max": value, "n": n,
            **peer}


# --------------------------------------------------------------------------------------------- the bench


def idle_times(options):
    """What an idle server takes: (TTFT, TBT) medians, and how many requests a second one after another."""
    served = serve(options)
    try:
        results, shapes = [], Shapes(7)
        host, port = served.address.rsplit(":", 1)

        async def one_by_one():
            for _ in range(25):
                result = Result(0)
                await ask(host, int(port), shapes.body(), result)
                results.append(result)
        asyncio.run(one_by_one())
    finally:
        served.end()
    ttft = sorted(r.ttft for r in results)[len(results) // 2]
    tbt = sorted(r.tbt for r in results)[len(results) // 2]
    return ttft, tbt


def find_knee(options, slo, base, rows):
    """Rates up to where a tenth misses, with everything let in; the last good one, and the best goodput."""
    served = serve(options, "--admission=all")
    good, best, rate = base / 2, 0.0, base / 2
    try:
        while rate < 64 * base:
            s = run(served, "sweep all", rate, options.seconds, slo, int(rate * 100))
            rows.append(row(f"sweep {rate:.1f}/s all", "met", "share", s["met_share"], s["done"]))
            rows.append(row(f"sweep {rate:.1f}/s all", "goodput", "requests/s", s["goodput"], s["done"]))
            best = max(best, s["goodput"])
            if s["met_share"] < 0.9 or s["failed"]:
                break
            good = rate
            rate *= 1.3
    finally:
        served.end()
    return good, best


def with_the_door(options, slo, knee, rows):
    flags = [f"--slo-ttft={slo[0] * 1e6:.0f}us", f"--slo-tbt={slo[1] * 1e6:.0f}us", *options.serve]
    served = serve(options, *flags)
    best = 0.0
    try:
        for times in (0.7, 1.0, 1.4):
            s = run(served, "sweep door", knee * times, options.seconds, slo, int(times * 1000))
            rows.append(row(f"sweep {times} x", "met", "share", s["met_share"], s["done"]))
            rows.append(row(f"sweep {times} x", "goodput", "requests/s", s["goodput"], s["done"]))
            best = max(best, s["goodput"])
        before = metrics(served.address)
        s = run(served, "overload", knee * 2, options.overload_seconds, slo, 99, retry_share=options.retry_share,
                tail=60.0)
        after = metrics(served.address)
    finally:
        served.end()
        if options.log:
            pathlib.Path(options.log).write_text(served.process.log(), encoding="utf-8")
    return s, best, before, after


def slack(options, knee, rows):
    served = serve(options, "--slo-ttft=60s", "--slo-tbt=10s")
    try:
        s = run(served, "slack", knee * 0.3, options.seconds, (60.0, 10.0), 5)
    finally:
        served.end()
    rows.append(row("slack", "refused", "requests", s["refused"], s["sent"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--seconds", type=float, default=25, help="of each step of the sweep")
    parser.add_argument("--overload-seconds", type=float, default=120)
    parser.add_argument("--retry-share", type=float, default=0.5, help="of clients that come back")
    parser.add_argument("--ttft-factor", type=float, default=10)
    parser.add_argument("--tbt-factor", type=float, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--knee", type=float, help="requests/s: skip the search")
    parser.add_argument("--slo", help="TTFT,TBT in ms: instead of the factors")
    parser.add_argument("--log", help="keep what the server with the door said")
    parser.add_argument("--serve", action="append", default=[], help="one more setting of the server with the door")
    options = parser.parse_args()
    make_model()
    rows = []
    begin = time.monotonic()
    if options.slo:
        slo = tuple(float(ms) / 1e3 for ms in options.slo.split(","))
        ttft = slo[0] / options.ttft_factor
    else:
        ttft, tbt = idle_times(options)
        slo = (ttft * options.ttft_factor, tbt * options.tbt_factor)
        say(f"idle: ttft {ttft * 1e3:.1f} ms tbt {tbt * 1e3:.2f} ms")
    say(f"objectives: ttft {slo[0] * 1e3:.1f} ms tbt {slo[1] * 1e3:.2f} ms")
    if options.knee:
        knee, best_all = options.knee, 0.0
    else:
        knee, best_all = find_knee(options, slo, 0.5 / ttft, rows)
    say(f"requests begin to miss above {knee:.1f}/s")
    s, best, before, after = with_the_door(options, slo, knee, rows)
    best = max(best, best_all)
    came = after["booked_back_total"] - before["booked_back_total"]
    rows += [
        row("overload", "met", "share", s["met_share"], s["done"]),
        row("overload", "goodput", "requests/s", s["goodput"], s["done"], peer="best of the sweep", peer_value=best,
            ratio=s["goodput"] / best if best else 0.0),
        row("overload", "retry gets in", "share", s["back_in"] / s["back"] if s["back"] else 0.0, s["back"]),
        row("overload", "refused", "requests", s["refused"], s["sent"]),
        row("overload", "failed", "requests", s["failed"], s["sent"]),
        row("overload", "ttft error p50", "ratio", after["ttft_error_p50_ratio"], 128),
        row("overload", "ttft error p90", "ratio", after["ttft_error_p90_ratio"], 128),
        row("overload", "would have met", "share",
            after["refusals_would_have_met_total"] / max(1.0, after["refusals_judged_total"]),
            int(after["refusals_judged_total"])),
    ]
    slack(options, knee, rows)
    say(f"at 2 x: met {s['met_share']:.3f} (>= 0.9), goodput {s['goodput']:.2f} of {best:.2f} = "
        f"{s['goodput'] / best if best else 0:.3f} (>= 0.85), retries in {s['back_in']}/{s['back']} (>= 0.8; booked "
        f"and back {came:.0f}), error p50 {after['ttft_error_p50_ratio']:.2f} p90 {after['ttft_error_p90_ratio']:.2f}, "
        f"{time.monotonic() - begin:.0f} s")
    if options.json:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
                                check=False).stdout.strip()
        result = {"bench": "door", "command": "bench/bench_door.py " + " ".join(sys.argv[1:]), "commit": commit,
                  "machine": f"{os.cpu_count()} processors, {platform.release()}",
                  "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "rows": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
