#!/usr/bin/env python3
"""A thousand streams at once for minutes: every answer right, and nothing grows or is left behind.

    bench/bench_streams.py --model models/lookup --json build/bench/streams.json

Starts `mooncake serve` with the settings below (and those behind `--`) and keeps --streams requests under way for
--seconds; tests/e2e/streams.py says what they ask. Rows: answers, those wrong or failed, those of the wrong ones that
`mooncake run` does not give as well (what it gives too is the model's own mistake), requests and tokens a second,
times, hit ratio; for each process its memory after a fifth of the time beside its memory at the end (`rss growth`, the
ratio of the two), processor seconds, and what it holds more than before the first request (`descriptors`, `pages`,
`reservations`, `leases` ...). Exits with 1 when an answer was wrong or failed, memory grew by more than 2 %, or
something was left behind. Needs build/release/mooncake and build/venv (make deps).
"""
import argparse
import asyncio
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))
from cluster import Served  # noqa: E402 (needs the path above)
from results import processor_ns, write  # noqa: E402
from streams import Load  # noqa: E402

# The pool is full within the first minute, and so is what the gateway knows of it.
SETTINGS = ["--kv-memory=1G", "--pool-memory=256M"]
# What a role holds, by the name of its counter: as many after as before.
HELD = ("pages_free", "pages_reserved", "pages_quarantined", "reservations", "queued", "prefilling",
        "decoding", "store_leases", "store_tokens", "transfer_windows", "requests_active")
QUIET_S = 30


def status_kb(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def held(served):
    """{process: {what: how much}} of what comes and goes."""
    found = {"serve": {"descriptors": len(os.listdir(f"/proc/{served.process.pid}/fd"))}}
    for name, pid in served.members().items():
        counters = served.stats(name)
        found[name] = {key: value for key, value in counters.items() if key.endswith(HELD)}
        found[name]["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
    return found


def memory(served):
    sizes = {name: status_kb(pid, "VmRSS") for name, pid in served.members().items()}
    sizes["serve"] = status_kb(served.process.pid, "VmRSS")
    return sizes


def differences(before, after):
    """What is not as it was. Fewer descriptors are: one was in use for a moment when they were counted."""
    return {f"{name} {key}": (value, after[name].get(key)) for name, each in before.items()
            for key, value in each.items()
            if after[name].get(key) != value
            and not (key == "descriptors" and after[name][key] < value)}


def left_behind(served, before):
    """What is not as before, once leases had time to end."""
    end = time.monotonic() + QUIET_S
    while differences(before, held(served)) and time.monotonic() < end:
        time.sleep(0.5)
    return differences(before, held(served))


def load_of(served, options, streams):
    return Load(served.address, os.path.basename(options.model.rstrip("/")), streams,
                pages=(options.pages_min, options.pages_max), chat=options.chat,
                expect=options.expect, seed=options.seed)


def start_values(served, options):
    """As nothing was asked yet, but with the connections that the first questions open for good."""
    served.settle()
    before = held(served)
    asyncio.run(load_of(served, options, 32).run(2))
    for name, each in held(served).items():
        before[name]["descriptors"] = each["descriptors"]
    return before


class Watch:
    """Memory after a fifth of the time and at its end, under load; and a line every ten seconds."""

    def __init__(self, served, load, seconds):
        self.served, self.load, self.seconds = served, load, seconds
        self.early, self.late, self.last, self.answered = None, None, 0.0, 0

    def __call__(self, now):
        if self.early is None and now >= self.seconds / 5:
            self.early = memory(self.served)
        if now >= self.seconds - 2:
            self.late = memory(self.served)
        if now - self.last < 10:
            return
        counts = self.load.counts
        rate = (counts["answered"] - self.answered) / (now - self.last)
        self.last, self.answered = now, counts["answered"]
        sizes = " ".join(f"{name}={kb // 1024}M" for name, kb in memory(self.served).items())
        print(f"{now:5.0f} s: {dict(counts)}, {rate:.0f}/s, {sizes}", file=sys.stderr, flush=True)


def plain(case, metric, unit, value, values=()):
    values = list(values) or [value]
    return {"case": case, "metric": metric, "unit": unit, "value": value, "min": min(values),
            "max": max(values), "n": len(values)}


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def rows_of(case, load, seconds, early, late, used, left):
    counts = load.counts
    rows = [plain(case, name, "answers", counts[name]) for name in ("answered", "right", "wrong", "failed")]
    rows += [plain(case, "rate", "requests/s", counts["answered"] / seconds),
             plain(case, "prompt rate", "tokens/s", counts["prompt_tokens"] / seconds),
             plain(case, "output rate", "tokens/s", counts["output_tokens"] / seconds),
             plain(case, "hit ratio", "1", counts["cached_tokens"] / max(1, counts["prompt_tokens"]))]
    for name, times in (("ttft", load.ttft), ("whole", load.whole)):
        rows.append(plain(case, name, "s", statistics.median(times or [0.0]), times or [0.0]))
        rows.append(plain(case, f"{name} p99", "s", quantile(times, 0.99)))
    for name, kb in late.items():
        rows.append(plain(f"{case} {name}", "rss", "bytes", kb * 1024))
        rows.append(plain(f"{case} {name}", "rss growth", "1", kb / max(1, early.get(name, kb))))
        if name in used:
            rows.append(plain(f"{case} {name}", "processor", "s", used[name]))
    rows += [plain(f"{case} {what}", "left behind", "1", (after or 0) - before)
             for what, (before, after) in left.items()]
    return rows


def alone(options, asked):
    """What the model answers in a process of its own, where nothing is shared or moved."""
    chat = ["--chat"] if options.chat else []
    text = f"{asked['prompt']}{chr(10) if options.chat else ' '}{asked['question']}"
    command = [os.environ["MC_TEST_BINARY"], "run", options.model, "-p", text, "-n", "8", *chat]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(options):
    served = Served(*SETTINGS, *options.settings, model=options.model)
    try:
        load = load_of(served, options, options.streams)
        before, pids = start_values(served, options), served.members()
        watch = Watch(served, load, options.seconds)
        seconds = asyncio.run(load.run(options.seconds, watch))
        late = watch.late or memory(served)
        used = {name: processor_ns(pid) / 1e9 for name, pid in pids.items()}
        spent = resource.getrusage(resource.RUSAGE_SELF)
        used["client"] = spent.ru_utime + spent.ru_stime
        left = left_behind(served, before)
        assert served.members() == pids, "a process was started again"
    finally:
        served.end()
    case = f"streams {options.streams}" + (" chat" if options.chat else "")
    rows = rows_of(case, load, seconds, watch.early or late, {**late, "client": spent.ru_maxrss}, used, left)
    grown = [name for name, kb in late.items() if watch.early and kb > 1.02 * watch.early[name]]
    ours = [each for each in load.wrong if alone(options, each) != each["answer"].strip()]
    rows.append(plain(case, "wrong, and not the model's own", "answers", len(ours)))
    for each in ours[:5] + load.wrong[:5] + load.failures[:5]:
        print(each, file=sys.stderr)
    return rows, bool(load.counts["wrong"] or load.counts["failed"] or grown or left)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "lookup"))
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--pages-min", type=int, default=4, help="of a prompt")
    parser.add_argument("--pages-max", type=int, default=10)
    parser.add_argument("--chat", action="store_true", help="through chat completions")
    parser.add_argument("--expect", choices=("code", "same"), default="code",
                        help="same: for a model without training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*", help="of mooncake serve, behind --")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, options.streams + 4096), hard))
    rows, failed = run(options)
    write("streams", rows, options.json)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
