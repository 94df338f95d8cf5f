#!/usr/bin/env python3
"""Does the simulator say what a live cluster does? The same trace, profile and shape through both.

    bench/bench_live_sim.py --trace conversation_trace.jsonl --json bench/results/DATE-live-sim.json

`mooncake serve --engine timing` (build/release) with --prefill and --decode workers and a pool is asked by
`mooncake bench serve` as the trace says, prompts at their full length; then `mooncake sim` plays the same part of the
trace with the same profile: P, D and a pool (S). Nothing of the live run goes into the simulation. What live does by
itself is not assumed twice: the scheduler's own time (schedule_s = 0), and that the prefill worker makes the first
token (first_step = 0). A request is decided when its body is there, so of those that come at one moment (the traces' times are
whole seconds) short ones are first: receive_token_s, a microsecond a token. The run is recorded and replayed: the same decisions, byte for byte.

With --slo-ttft and --slo-tbt both refuse by prediction, by --policy and --admission, and who was let in is compared,
too; the clients' TBT is then held against the objective as the simulator does it, by the longest tenth of gaps.

Rows: TTFT with the simulator's as the peer, hit ratio likewise, decisions replayed, memory and descriptors of the
workers. A hundred of them: --prefill 60 --decode 40 --speed 4 --kv-scale 0.00002.
"""
import argparse
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))
from cluster import Served  # noqa: E402 (needs the path above)
from results import write  # noqa: E402

BINARY = os.environ["MC_TEST_BINARY"]
MODEL = ROOT / "models" / "lookup"
# What live does by itself, and every instance's memory of blocks large enough on both sides.
ASSUME = ("gpu = {gpu}\nllm = {llm}\nfirst_step = 0\nschedule_s = 0\ndram_tokens = 3e7\n"
          "receive_token_s = 1e-6 # a token id as JSON, written by one side and read by the other\n")


def say(text):
    print(text, file=sys.stderr, flush=True)


def row(case, metric, unit, value, n, peer=None, peer_value=None):
    made = {"case": case, "metric": metric, "unit": unit, "value": value, "min": value, "max": value, "n": n}
    if peer:
        made |= {"peer": peer, "peer_value": peer_value, "ratio": value / peer_value if peer_value else 0}
    return made


def run(*words):
    say("$ " + " ".join(map(str, words)))
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE).stdout


def figures(path):
    """Metric -> value, of a file with one case."""
    return {each["metric"]: each["value"] for each in json.loads(path.read_text(encoding="utf-8"))["rows"]}


def machine():
    """Seconds of processors: all, and taken by whoever runs this machine (steal)."""
    words = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    return sum(map(int, words)) / 100, int(words[7]) / 100


class Stood:
    """How long this machine stood still at worst: by how much a thread that asks for 10 ms, again and again, comes late."""

    def __init__(self):
        self.worst, self.over = 0.0, threading.Event()
        self.before = machine()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        last = time.monotonic()
        while not self.over.wait(0.01):
            now = time.monotonic()
            self.worst, last = max(self.worst, now - last - 0.01), now

    def end(self):
        self.over.set()
        self.thread.join()
        (all_before, taken_before), (all_now, taken_now) = self.before, machine()
        return self.worst, (taken_now - taken_before) / (all_now - all_before)


def memory(served):
    """Of each process: bytes of its own, its share of those that others map, too, and descriptors."""
    found = {}
    for name, pid in served.members().items():
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        own, share = (int(re.search(rf"^{what}:\s+(\d+)", rollup, re.M).group(1)) * 1024
                      for what in ("Anonymous", "Pss"))
        found[name] = (own, share, len(os.listdir(f"/proc/{pid}/fd")))
    return found


def door(arguments):
    """Who places and who is refused: the same words for both."""
    words = [f"--policy={arguments.policy}", f"--admission={arguments.admission}",
             f"--slo-ttft={arguments.slo_ttft}", f"--slo-tbt={arguments.slo_tbt}"]
    if arguments.admission_parameters:
        words.append(f"--admission-parameters={arguments.admission_parameters}")
    return words


def live(arguments, profile, folder):
    """The run: figures of the clients, memory at its end, and the recording."""
    recording, result = folder / "recording", folder / "live.json"
    recording.unlink(missing_ok=True)  # an old one is not written over
    served = Served("--engine=timing", f"--profile={profile}", f"--prefill={arguments.prefill}",
                    f"--decode={arguments.decode}", f"--record={recording}", f"--pool-memory={arguments.pool_memory}",
                    f"--kv-scale={arguments.kv_scale}", "--requests=8192", "--measure=false",
                    *door(arguments), model=str(MODEL))
    watch = Stood()
    try:
        say(run(BINARY, "bench", "serve", "--url", f"http://{served.address}", "--trace", arguments.trace,
                "--scale", "none", "--speed", f"{arguments.speed:g}", "--duration", f"{arguments.seconds:g}s",
                "--timeout", "60m", "--csv", folder / "live.csv", "--json", result,
                "--slo-ttft", arguments.slo_ttft, "--slo-tbt", arguments.slo_tbt, "--slo-tbt-by", "longest"))
        stood = watch.end()
        found = memory(served)
    finally:
        code = served.end()
        (folder / "live.log").write_text(served.process.log(), encoding="utf-8")
    assert code == 0, code
    return figures(result), found, recording, stood


def simulated(arguments, profile, folder):
    result = folder / "sim.json"
    cluster = f"{arguments.prefill}P+{arguments.decode}D+1S"
    say(run(BINARY, "sim", "--trace", arguments.trace, "--duration", f"{arguments.seconds * arguments.speed:.9g}s",
            "--speed", arguments.speed, "--cluster", cluster, "--assume", profile, *door(arguments),
            "--csv", folder / "sim.csv", "--json", result))
    return figures(result)


def replayed(recording, folder):
    """Decisions that were the same again; the command fails if one is not."""
    result = folder / "replay.json"
    say(run(BINARY, "sim", "--replay", recording, "--json", result))
    return figures(result)


def rows_of(arguments, clients, model, again, found, stood):
    case = f"{arguments.prefill}P+{arguments.decode}D, {arguments.speed:g}x, {arguments.seconds:g} s"
    if arguments.policy != "algorithm1":
        case += f", {arguments.policy}"
    if arguments.admission != "all":
        case += f", {arguments.admission}"
    sent = sum(1 for _ in csv.reader((arguments.keep / "live.csv").open(encoding="utf-8"))) - 1
    rows = [row(case, f"TTFT {share}", "s", clients[f"TTFT {share}"] / 1e3, sent, "mooncake sim",
                model[f"ttft {share}"]) for share in ("p50", "p90", "p99", "mean")]
    rows.append(row(case, "hit ratio", "share", clients["hit ratio"], sent, "mooncake sim", model["hit ratio"]))
    rows += [row(case, "TBT longest tenth " + share, "s", clients[f"TBT longest tenth of a request {share}"] / 1e3, sent,
                 "mooncake sim", model["tbt " + share]) for share in ("mean", "p90")]
    if arguments.slo_ttft != "0s" or arguments.slo_tbt != "0s":
        good = clients["met both by longest tenth"] * clients["answered"] / sent
        rows.append(row(case, "refused share", "share of sent", clients["refused"] / sent, sent, "mooncake sim",
                        model["refused"]))
        rows.append(row(case, "within objectives", "share of sent", good, sent, "mooncake sim", model["within SLOs"]))
    rows.append(row(case, "replayed decisions", "", again["decisions"], int(again["decisions"])))
    rows.append(row(case, "replayed the same", "yes", again["same decisions"], int(again["decisions"])))
    rows.append(row(case, "replay", "x real time", again["throughput"], int(again["events"])))
    workers = [value for name, value in found.items() if name.startswith(("prefill", "decode"))]
    for place, (metric, unit) in enumerate((("own memory of a worker, most", "bytes"),
                                            ("memory of a worker with its share, most", "bytes"),
                                            ("descriptors of a worker, most", ""))):
        rows.append(row(case, metric, unit, max(value[place] for value in workers), len(workers)))
    rows.append(row(case, "memory of all processes", "bytes", sum(value[1] for value in found.values()), len(found)))
    rows.append(row(case, "this machine stood still, at worst", "s", stood[0], 1))
    rows.append(row(case, "processors taken by its host", "share", stood[1], 1))
    for metric in ("answered", "refused", "failed"):
        rows.append(row(case, metric, "", clients[metric], sent))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--prefill", type=int, default=5)
    parser.add_argument("--decode", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--gpu", default="a800")
    parser.add_argument("--llm", default="llama3-70b")
    parser.add_argument("--kv-scale", default="0.00005")
    parser.add_argument("--pool-memory", default="2G")
    parser.add_argument("--policy", default="algorithm1")
    parser.add_argument("--admission", default="all", help="all, early-system ...")
    parser.add_argument("--admission-parameters", default="")
    parser.add_argument("--slo-ttft", default="0s")
    parser.add_argument("--slo-tbt", default="0s")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for logs, CSV and the recording")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.keep = arguments.keep or pathlib.Path(temporary)
        arguments.keep.mkdir(parents=True, exist_ok=True)
        profile = arguments.keep / "profile"
        profile.write_text(ASSUME.format(gpu=arguments.gpu, llm=arguments.llm), encoding="utf-8")
        begin = time.monotonic()
        clients, found, recording, stood = live(arguments, profile, arguments.keep)
        model = simulated(arguments, profile, arguments.keep)
        again = replayed(recording, arguments.keep)
        say(f"took {time.monotonic() - begin:.0f} s")
        write("live sim", rows_of(arguments, clients, model, again, found, stood), arguments.json)


if __name__ == "__main__":
    main()
