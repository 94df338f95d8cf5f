#!/usr/bin/env python3
"""A trace's own traffic through `mooncake serve`: the whole hour, faster than it came.

    bench/bench_trace.py --trace conversation_trace.jsonl --speed 12 --name main --results bench/results/DATE-trace
    bench/bench_trace.py --trace conversation_trace.jsonl --speed 40 --refuse 0.1 --name tenth --results ...

Starts `mooncake serve` (build/release) with the settings below and those behind `--`, plays the trace with `mooncake
bench serve --scale block`, and keeps what that writes: RESULTS-NAME.json and .svg. With --refuse the server has
objectives, and the hour is played again and again (--plays at most) until the speed is found at which that share of
all requests is refused, within a quarter of it; the last play is kept. Exits with 1 when a request failed, the counts
do not add up, or that speed was not found. Needs build/release/mooncake and build/venv (make deps).
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))
from cluster import Served  # noqa: E402 (needs the path above)
from results import processor_ns  # noqa: E402

# 171,000 blocks of the conversation trace's hour with a small model: nothing needs to be evicted.
SETTINGS = ["--kv-memory=1G", "--pool-memory=4G"]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--model", default=str(ROOT / "models" / "lookup"))
    parser.add_argument("--speed", type=float, default=12, help="where to begin, with --refuse")
    parser.add_argument("--refuse", type=float, default=0, help="share of requests to be refused")
    parser.add_argument("--plays", type=int, default=6, help="at most, with --refuse")
    parser.add_argument("--slo-ttft", default="1s")
    parser.add_argument("--slo-tbt", default="100ms")
    parser.add_argument("--name", default="trace")
    parser.add_argument("--results", default="", help="path and beginning of the files' names")
    parser.add_argument("serve", nargs="*", help="more settings of `mooncake serve`, behind --")
    return parser.parse_args()


def figures(path):
    rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["rows"]
    return {row["metric"]: row["value"] for row in rows}


def play(options, speed):
    """One play against a server of its own; what `bench serve` found."""
    serve = [*SETTINGS, *options.serve]
    if options.refuse:
        serve += [f"--slo-ttft={options.slo_ttft}", f"--slo-tbt={options.slo_tbt}"]
    served = Served(*serve, model=options.model)
    try:
        base = f"{options.results}-{options.name}" if options.results else str(ROOT / "build" / "trace")
        command = [BINARY, "bench", "serve", "--url", f"http://{served.address}", "--trace", options.trace,
                   "--scale", "block", "--speed", f"{speed:g}", "--slo-ttft", options.slo_ttft,
                   "--slo-tbt", options.slo_tbt, "--json", base + ".json", "--svg", base + ".svg",
                   "--case", f"{options.name} speed {speed:g}"]
        print("served with:", " ".join(serve), flush=True)
        code = subprocess.run(command, check=False).returncode
        for name, pid in served.members().items():
            print(f"{name:12} {processor_ns(pid) / 1e9:8.1f} s of processor")
    finally:
        served.end()
    return code, figures(base + ".json")


def share_refused(found):
    return found["refused"] / max(1, found["sent"])


def between(low, high, speed):
    """The next speed to try: up or down until it lies between two, then between these."""
    if low and high:
        return (low * high) ** 0.5
    return speed * 1.4 if not high else speed / 1.4


def search(options):
    """Whole plays, until the share that was asked for is refused, within a quarter of it."""
    low, high, speed = None, None, options.speed
    for _ in range(options.plays):
        code, found = play(options, speed)
        share = share_refused(found)
        print(f"speed {speed:g}: {share:.3f} refused", flush=True)
        if code or abs(share - options.refuse) < options.refuse / 4:
            break
        low, high = (speed, high) if share < options.refuse else (low, speed)
        speed = between(low, high, speed)
    return code, found


def main():
    options = read_options()
    code, found = search(options) if options.refuse else play(options, options.speed)
    whole = found["answered"] + found["refused"] + found["failed"] == found["sent"]
    print(f"{'whole' if whole else 'COUNTS DO NOT ADD UP'}; refused {share_refused(found):.3f}")
    missed = options.refuse and abs(share_refused(found) - options.refuse) >= options.refuse / 4
    return bool(code or not whole or found["failed"] > 0 or missed)


if __name__ == "__main__":
    sys.exit(main())
