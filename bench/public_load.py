#!/usr/bin/env python3
"""AIPerf, a public load generator from PyPI, drives `mooncake serve` unmodified.

    bench/public_load.py [--json FILE] [--model DIR] [--requests N] [--concurrency N]

Makes a virtual environment of its own, build/venv-load (about 700 MB), the first time. Serves the model on
this machine, lets AIPerf stream completions and then chats (its own synthetic prompts, tokenised by the
model's directory), and holds it to: every request answered, none in error, as many tokens as were asked for, and
/metrics scraped by it. The binary is build/release/mooncake unless MC_TEST_BINARY says otherwise.

Rows (bench/README.md has the shape): requests/s, TTFT and time between tokens, as AIPerf measured them. They
tell that it works; on one machine generator and server share the cores.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from cluster import Served  # noqa: E402 (needs the path above)

PACKAGE = "aiperf==0.13.0"
VENV = ROOT / "build" / "venv-load"
OUT = ROOT / "build" / "public-load"
METRICS = [("request_throughput", "throughput", "requests/s"), ("time_to_first_token", "ttft", "ms"),
           ("inter_token_latency", "tbt", "ms")]


def say(text):
    print(text, file=sys.stderr, flush=True)


def installed():
    """The generator, in its own environment; `made` is written last, so that a pip that failed is tried again."""
    made = VENV / "made"
    if not made.exists() or made.read_text() != PACKAGE:
        say(f"{VENV} gets {PACKAGE} from Python's registry")
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "--quiet",
                        "--disable-pip-version-check", PACKAGE], check=True)
        made.write_text(PACKAGE)
    return VENV / "bin" / "aiperf"


def drive(tool, served, options, kind):
    """One run; AIPerf's own summary."""
    folder = OUT / kind
    done = subprocess.run(
        [tool, "profile", "--model", os.path.basename(options.model), "--url", f"http://{served.address}",
         "--endpoint-type", kind, "--streaming", "--tokenizer", options.model,
         "--use-server-token-count", "--concurrency", str(options.concurrency),
         "--request-count", str(options.requests), "--synthetic-input-tokens-mean", str(options.input),
         "--output-tokens-mean", str(options.output), "--extra-inputs", "ignore_eos:true",
         "--extra-inputs", "temperature:0", "--random-seed", "1", "--ui", "none",
         "--artifact-dir", folder], capture_output=True, timeout=options.seconds, check=False)
    if done.returncode != 0:
        say(done.stdout.decode("utf-8", "replace")[-3000:])
        raise SystemExit(f"AIPerf ended with {done.returncode}")
    summary = json.loads((folder / "profile_export_aiperf.json").read_text())
    assert not summary["error_summary"], summary["error_summary"]
    assert summary["request_count"]["avg"] == options.requests, summary["request_count"]
    lengths = summary["output_sequence_length"]
    assert lengths["min"] == lengths["max"] == options.output, lengths
    return summary


def rows_of(summary, kind):
    rows = []
    for name, metric, unit in METRICS:
        found = summary[name]
        row = {"case": f"aiperf {kind}", "metric": metric, "unit": unit, "value": found["avg"], "n": 1}
        if "p50" in found:
            row.update(value=found["p50"], min=found["min"], max=found["max"], n=found["count"])
        rows.append(row)
    return rows


def commit():
    return subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True,
                          check=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", help="where figures go")
    parser.add_argument("--model", default=str(ROOT / "models" / "tiny-random"))
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--input", type=int, default=100, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--seconds", type=int, default=500, help="a run takes no longer")
    options = parser.parse_args()
    options.model = os.path.abspath(options.model)
    tool = installed()
    served = Served("--kv-memory=128M", "--pool-memory=128M", model=options.model)
    rows, scraped = [], False
    try:
        for kind in ("completions", "chat"):
            summary = drive(tool, served, options, kind)
            rows += rows_of(summary, kind)
            scraped = scraped or any((OUT / kind).glob("server_metrics*"))
            say(f"{kind}: {summary['request_throughput']['avg']:.1f} requests/s, "
                f"TTFT p50 {summary['time_to_first_token']['p50']:.1f} ms, "
                f"{options.requests} of {options.requests} answered")
    finally:
        served.end()
    assert scraped, "AIPerf did not read /metrics"
    say("/metrics was read")
    if options.json:
        figures = {"bench": "public-load", "command": " ".join(["bench/public_load.py", *sys.argv[1:]]),
                   "commit": commit(), "machine": f"{os.cpu_count()} processors, {platform.release()}",
                   "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                   "tool": PACKAGE, "rows": rows}
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
