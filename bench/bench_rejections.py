#!/usr/bin/env python3
"""Who refuses more under overload: the baseline, early rejection, or early rejection that predicts (B13, A-T3)?

    bench/bench_rejections.py --trace conversation_trace.jsonl --json bench/results/DATE-rejections.json
    bench/bench_rejections.py --trace conversation_trace.jsonl --clusters 8P+5D,10P+3D --speeds 2,3,4 --show 10

The report's order is baseline (4,183 of 23,000) over early (3,771) over predicted (3,589), 8P+8D at twice the speed of
a trace that is not public, without a word about what else was set. So this runs clusters at speeds under each reading
of what it leaves open, and counts in how many of the overloaded ones the order comes out, and by how many points:

  own      the load is that of the instances which are chosen, those on their way to them counted
  pool     it is the mean of the pool; for early rejection of those who decode now (pool=1), as the report writes it
  + check  the decode instance looks again when a prompt gets there, and may refuse it (the report's step 4)

Overloaded: each of the three refuses from 2 to 60 % of the requests. Needs build/release/mooncake; nothing is timed.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = os.environ.get("MC_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "bench"))
from results import write  # noqa: E402 (needs the path above)

BASELINE, EARLY, PREDICTED = ADMISSIONS = ("stages", "early", "early-system")
PLAIN = "quantile=0.5,bookings=0"  # a prediction has no margin, and no room is kept: the papers have neither
READINGS = {"own": (PLAIN, []), "own + check": (PLAIN, ["--check-decode"]), "pool": (PLAIN + ",pool=1", []),
            "pool + check": (PLAIN + ",pool=1", ["--check-decode"])}
ORDERS = {"baseline > early > predicted": lambda b, e, p: b > e > p, "baseline > early": lambda b, e, p: b > e,
          "early > predicted": lambda b, e, p: e > p, "baseline > predicted": lambda b, e, p: b > p}


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--clusters", default="8P+2D,8P+3D,8P+4D,8P+5D,8P+6D,8P+8D,6P+2D,10P+3D,12P+3D,12P+4D,6P+4D")
    parser.add_argument("--speeds", default="2,2.5,3,3.5,4,4.5,5,6")
    parser.add_argument("--readings", default=",".join(READINGS))
    parser.add_argument("--sim", default="", help="more settings of every run, one text")
    parser.add_argument("--show", type=int, default=3, help="so many settings of each reading, those nearest to the order")
    parser.add_argument("--json", default="")
    return parser.parse_args()


def run(options, reading):
    """{(cluster, speed): {admission: figures}}"""
    parameters, more = READINGS[reading]
    clusters, speeds = options.clusters.split(","), options.speeds.split(",")
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([BINARY, "sim", "-t", options.trace, "-c", options.clusters, "-a", ",".join(ADMISSIONS), "-s",
                        options.speeds, "--slo-ttft", "30s", "--slo-tbt", "100ms", "--admission-parameters", parameters,
                        "--json", file.name, *more, *options.sim.split()], check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(pathlib.Path(file.name).read_text(encoding="utf-8"))["rows"]
    cases = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["metric"]] = row["value"]
    return {(cluster, speed): {admission: cases[f"{cluster} algorithm1 {admission} {speed}x"] for admission in ADMISSIONS}
            for cluster in clusters for speed in speeds}


def refused(figures):
    return [100 * figures[admission]["refused"] for admission in ADMISSIONS]


def margin(three):
    """How far the order is from not being there, in points; below 0: it is not."""
    baseline, early, predicted = three
    return min(baseline - early, early - predicted)


def figure(case, metric, unit, value, n, low=None, high=None):
    return {"case": case, "metric": metric, "unit": unit, "value": value, "min": value if low is None else low,
            "max": value if high is None else high, "n": n}


def judge(options, reading, runs, rows):
    overloaded = {key: figures for key, figures in runs.items() if all(2 <= share <= 60 for share in refused(figures))}
    case = f"B13 {reading}"
    rows.append(figure(case, "overloaded settings", "", len(overloaded), len(runs)))
    for order, holds in ORDERS.items():
        count = sum(holds(*refused(figures)) for figures in overloaded.values())
        rows.append(figure(case, order, "settings", count, len(overloaded)))
    ranked = sorted(overloaded, key=lambda key: -margin(refused(overloaded[key])))
    for key in ranked[:options.show]:
        for admission, share in zip(ADMISSIONS, refused(overloaded[key])):
            name = f"{case}, {key[0]} {key[1]}x {admission}"
            rows.append(figure(name, "rejected", "%", share, 1))
            rows.append(figure(name, "prefill in vain", "s", overloaded[key][admission]["wasted prefill"], 1))
            rows.append(figure(name, "within SLOs", "%", 100 * overloaded[key][admission]["within SLOs"], 1))


def main():
    options = read_options()
    rows = []
    for reading in options.readings.split(","):
        judge(options, reading, run(options, reading), rows)
    write("rejections", rows, options.json)


if __name__ == "__main__":
    main()
