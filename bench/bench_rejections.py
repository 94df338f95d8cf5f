#!/usr/bin/env python3
"""Who refuses more under overload: the baseline, early rejection, or early rejection that predicts (B13, A-T3)?

    bench/bench_rejections.py --trace conversation_trace.jsonl --json bench/results/DATE-rejections.json
    bench/bench_rejections.py --trace conversation_trace.jsonl --clusters 8P+5D,10P+3D --speeds 2,3,4 --show 10

The report's order is baseline (4,183 of 23,000) over early (3,771) over predicted (3,589): 8P+8D, a trace that is not
public at twice its speed, and not a word about what else was set. So this runs clusters at speeds, and 8P+8D under
several objectives for TBT (ours decodes faster than theirs did), with each reading of what is left open, and counts in
how many of the overloaded settings the order comes out:

  own    the load is that of the instances which are chosen, those on their way to them counted
  pool   it is the mean of the pool; for early rejection of those who decode now (pool=1), as the report words it
  gaps   TBT is a request's longest gaps, learnt, which is what the objective is about; else it is a decode step

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
READINGS = {"own": PLAIN, "own, gaps": PLAIN + ",gaps=0.5", "pool": PLAIN + ",pool=1",
            "pool, gaps": PLAIN + ",pool=1,gaps=0.5"}
PUBLISHED = dict(zip(ADMISSIONS, (18.2, 16.4, 15.6)))
ORDERS = {"baseline > early > predicted": lambda b, e, p: b > e > p, "baseline > early": lambda b, e, p: b > e,
          "early > predicted": lambda b, e, p: e > p, "baseline > predicted": lambda b, e, p: b > p}


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", required=True)
    parser.add_argument("--clusters", default="8P+2D,8P+3D,8P+4D,8P+5D,8P+6D,8P+8D,10P+3D,12P+4D", help="at 100 ms")
    parser.add_argument("--speeds", default="2,2.5,3,3.5,4,5")
    parser.add_argument("--objectives", default="66,68,70,72,74,76,78,80", help="for TBT, in ms, of 8P+8D")
    parser.add_argument("--objective-speeds", default="2,2.25,2.5,2.75,3,3.25,3.5,4")
    parser.add_argument("--sim", default="", help="more settings of every run, one text")
    parser.add_argument("--show", type=int, default=3, help="so many settings of each reading, those nearest to the order")
    parser.add_argument("--json", default="")
    return parser.parse_args()


def run(options, reading, clusters, speeds, slo_tbt_ms):
    """{(cluster, speed, objective): {admission: figures}}"""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([BINARY, "sim", "-t", options.trace, "-c", clusters, "-a", ",".join(ADMISSIONS), "-s", speeds,
                        "--slo-ttft", "30s", "--slo-tbt", f"{slo_tbt_ms}ms", "--admission-parameters", READINGS[reading],
                        "--json", file.name, *options.sim.split()], check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(pathlib.Path(file.name).read_text(encoding="utf-8"))["rows"]
    cases = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["metric"]] = row["value"]
    return {(cluster, speed, slo_tbt_ms): {admission: cases[f"{cluster} algorithm1 {admission} {speed}x"]
                                           for admission in ADMISSIONS}
            for cluster in clusters.split(",") for speed in speeds.split(",")}


def refused(figures):
    return [100 * figures[admission]["refused"] for admission in ADMISSIONS]


def margin(three):
    """By how many points the order is there; 0 or less: it is not."""
    baseline, early, predicted = three
    return min(baseline - early, early - predicted)


def figure(case, metric, unit, value, n, **more):
    return {"case": case, "metric": metric, "unit": unit, "value": value, "min": value, "max": value, "n": n, **more}


def judge(case, runs, show):
    overloaded = {key: figures for key, figures in runs.items() if all(2 <= share <= 60 for share in refused(figures))}
    rows = [figure(case, "overloaded settings", "", len(overloaded), len(runs))]
    for order, holds in ORDERS.items():
        count = sum(holds(*refused(figures)) for figures in overloaded.values())
        rows.append(figure(case, order, "settings", count, len(overloaded)))
    ranked = sorted(overloaded, key=lambda key: -margin(refused(overloaded[key])))
    for cluster, speed, slo_tbt_ms in ranked[:show]:
        for admission, figures in overloaded[cluster, speed, slo_tbt_ms].items():
            name = f"{case}, {cluster} {speed}x {slo_tbt_ms} ms {admission}"
            share, published = 100 * figures["refused"], PUBLISHED[admission]
            rows.append(figure(name, "rejected", "%", share, 1, peer="paper", peer_value=published,
                               ratio=share / published))
            rows.append(figure(name, "prefill in vain", "s", figures["wasted prefill"], 1))
            rows.append(figure(name, "within SLOs", "%", 100 * figures["within SLOs"], 1))
    return rows


def main():
    options = read_options()
    rows = []
    for reading in READINGS:
        rows += judge(f"B13 {reading}", run(options, reading, options.clusters, options.speeds, 100), options.show)
    for reading in READINGS:
        runs = {}
        for objective in options.objectives.split(","):
            runs.update(run(options, reading, "8P+8D", options.objective_speeds, objective))
        rows += judge(f"B13 {reading}, objectives of 8P+8D", runs, options.show)
    write("rejections", rows, options.json)


if __name__ == "__main__":
    main()
