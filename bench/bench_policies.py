#!/usr/bin/env python3
"""The policy `conductor` against Algorithm 1 and every peer policy, simulated, from idle to twice saturation.

    bench/bench_policies.py --traces DIR --json bench/results/DATE-policies.json --svg bench/results/DATE-policies.svg
    bench/bench_policies.py --traces DIR --quick

For each trace and cluster it looks for saturation: the lowest speed at which less than 90 % of the offered requests
finish within both objectives under Algorithm 1 with its own reject line (`early`). Then every policy runs at shares of that
speed, each with every admission of --admissions, and the best of them counts, speed by speed: also for Algorithm 1 and
for conductor's acceptance against it. conductor itself has one admission, its default. Printed: goodput in requests/s
and input tokens/s, and for conductor against Algorithm 1 the ratio of both, the lowest difference of acceptance in a decile of
prompt lengths (points), the share of refusals that would have met their objectives, and the share of prefill seconds that was
wasted; behind that, the ratio to the best peer in each. Needs build/release/mooncake.

--bound runs both with a pool without bounds and transfers that take no time besides; the better one is the bound.
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
from plot import lines_svg  # noqa: E402 (needs the path above)
from results import write  # noqa: E402

OURS, PAPER = "conductor", "algorithm1"
ADMISSION = "early-system"  # of ours
FREE = ("--dram", "1000000000", "--gbps", "100000")
PEERS = ["dynamo", "lmetric", "llm-d", "sglang", "aibrix", "preble", "local", "least-loaded", "round-robin", "random"]
SHARES = [0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True, help="folder with conversation_trace.jsonl, synthetic_trace.jsonl")
    parser.add_argument("--trace", action="append", help="a file instead of those two; may be repeated")
    parser.add_argument("--clusters", default="8P+8D,10P+6D")
    parser.add_argument("--slo-ttft", default="30s")
    parser.add_argument("--slo-tbt", default="100ms")
    parser.add_argument("--admissions", default="early,early-system,early-system:gaps=0.4,early-system:gaps=0.5",
                        help="name, or name:parameters with + between them")
    parser.add_argument("--shares", help="of the speed at saturation: 0.5,1,1.3")
    parser.add_argument("--quick", action="store_true", help="Algorithm 1 and conductor alone, at four speeds")
    parser.add_argument("--bound", action="store_true", help="of these two, too: an unbounded pool, free transfers")
    parser.add_argument("--parameters", default="", help="of conductor")
    parser.add_argument("--admission-parameters", default="", help="of conductor")
    parser.add_argument("--sim", default="", help="more settings of every run, one text")
    parser.add_argument("--json", default="")
    parser.add_argument("--svg", default="")
    return parser.parse_args()


class Field:
    """One trace on one cluster."""

    def __init__(self, options, trace, cluster):
        self.options, self.trace, self.cluster = options, trace, cluster
        self.name = f"{pathlib.Path(trace).stem.removesuffix('_trace')} {cluster}"

    def run(self, policies, admission, speeds, *more):
        """{(policy, admission, speed): figures}; both processors work."""
        name, _, parameters = admission.partition(":")
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [BINARY, "sim", "-t", self.trace, "-c", self.cluster, "-p", ",".join(policies), "-a", name,
                       "-s", ",".join(f"{s:.6g}" for s in speeds), "--slo-ttft", self.options.slo_ttft, "--slo-tbt",
                       self.options.slo_tbt, "--admission-parameters", parameters.replace("+", ","), "--json", file.name,
                       *self.options.sim.split(), *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            rows = json.loads(pathlib.Path(file.name).read_text(encoding="utf-8"))["rows"]
        cases = {}
        for row in rows:
            cases.setdefault(row["case"], {})[row["metric"]] = row["value"]
        by_name = {f"{self.cluster} {p} {name} {s:g}x": (p, admission, s) for p in policies for s in speeds}
        return {by_name[case]: figures for case, figures in cases.items()}

    def every(self, policies, speeds, *more):
        """The same with every admission."""
        runs = {}
        for admission in self.options.admissions.split(","):
            runs |= self.run(policies, admission, speeds, *more)
        return runs

    def saturation(self):
        """To within 0.05 of the trace's own speed, from below."""
        def good(speeds):
            runs = self.run([PAPER], "early", speeds)
            return [runs[PAPER, "early", s]["within SLOs"] >= 0.9 for s in speeds]

        low = 0.25
        for step in (2, 0.4, 0.05):
            speeds = [round(low + step * (i + 1), 6) for i in range(10)]
            low = max([low] + [s for i, s in enumerate(speeds) if all(good(speeds)[:i + 1])])
        return round(low + 0.05, 6)


def worst_decile(ours, paper):
    names = [name for name in paper if name.startswith("finished, decile")]
    return min(100 * (ours[name] - paper[name]) for name in names)


def wasted(figures):
    spent = figures["prefill time"] * figures["finished"] * figures["offered"] + figures["wasted prefill"]
    return 100 * figures["wasted prefill"] / spent if spent else 0


def best_of(runs, policy, speed, metric):
    """The figures of this policy's best admission at this speed."""
    return max((run for key, run in runs.items() if key[0] == policy and key[2] == speed), key=lambda run: run[metric])


def best_peer(runs, ours, speed, metric):
    peers = {key[0] for key in runs if key[0] != PAPER}
    if not peers:
        return ""
    best = max(peers, key=lambda policy: best_of(runs, policy, speed, metric)[metric])
    return f"{best} {ours[metric] / best_of(runs, best, speed, metric)[metric]:.3f}"


def row_of(case, metric, unit, value, peer=None, peer_value=None):
    row = {"case": case, "metric": metric, "unit": unit, "value": value, "min": value, "max": value, "n": 1}
    if peer and peer_value:
        row |= {"peer": peer, "peer_value": peer_value, "ratio": value / peer_value}
    return row


def report(field, share, speed, ours, runs, rows, curves):
    a, b = ours[OURS, ADMISSION, speed], best_of(runs, PAPER, speed, "goodput")
    a["offered"] = field.count
    case = f"{field.name} {share:g} x saturation"
    ratios = []
    for metric, unit in (("goodput", "requests/s"), ("goodput tokens", "tokens/s")):
        paper = best_of(runs, PAPER, speed, metric)[metric]
        ratios.append(a[metric] / paper)
        values = {policy: best_of(runs, policy, speed, metric)[metric] for policy in {key[0] for key in runs}}
        values[OURS] = a[metric]
        for policy, value in sorted(values.items()):
            rows.append(row_of(f"{case} {policy}", metric, unit, value, PAPER if policy != PAPER else None, paper))
            curves.setdefault((metric, policy), []).append((share, value))
    for metric, unit, value in (("worst decile against " + PAPER, "points", worst_decile(a, b)),
                                ("refused but would have met", "share", a.get("refused but would have met", 0)),
                                ("wasted prefill", "share", wasted(a) / 100)):
        rows.append(row_of(f"{case} {OURS}", metric, unit, value))
    print(f"{share:6.2f} {speed:6.3g} | {100 * a['within SLOs']:6.2f} {100 * b['within SLOs']:6.2f} {ratios[0]:6.3f} "
          f"{ratios[1]:6.3f} | {worst_decile(a, b):6.1f} {100 * a.get('refused but would have met', 0):5.1f} "
          f"{wasted(a):6.2f} | " + ", ".join(best_peer(runs, a, speed, m) for m in ("goodput", "goodput tokens")), flush=True)


def compare(field, options, rows):
    saturation = field.saturation()
    shares = [0.5, 1, 1.3, 2] if options.quick else SHARES
    if options.shares:
        shares = [float(s) for s in options.shares.split(",")]
    speeds = [round(saturation * s, 4) for s in shares]
    own = ("--policy-parameters", options.parameters, "--admission-parameters", options.admission_parameters)
    runs = field.every([PAPER] if options.quick else [PAPER, *PEERS], speeds)
    ours = field.run([OURS], ADMISSION, speeds, *own)
    print(f"\n{field.name}: saturation at {saturation:g} x")
    print(f"{'share':>6} {'speed':>6} | {'good%':>6} {'paper':>6} {'ratio':>6} {'tokens':>6} | {'decile':>6} {'met%':>5} "
          f"{'waste%':>6} | to the best peer: requests, tokens")
    curves = {}
    for share, speed in zip(shares, speeds):
        report(field, share, speed, ours, runs, rows, curves)
    if options.bound:
        free = field.every([PAPER], speeds, *FREE) | field.run([OURS], ADMISSION, speeds, *own, *FREE)
        for share, speed in zip(shares, speeds):
            case = f"{field.name} {share:g} x saturation, unbounded pool, free transfers"
            for metric, unit in (("goodput", "requests/s"), ("goodput tokens", "tokens/s")):
                bound = max(best_of(free, policy, speed, metric)[metric] for policy in (PAPER, OURS))
                rows.append(row_of(case, metric, unit, bound, PAPER, best_of(runs, PAPER, speed, metric)[metric]))
            print(f"{share:6.2f} {speed:6.3g} | bound: {rows[-2]['ratio']:.3f} {rows[-1]['ratio']:.3f}", flush=True)
    return curves


def main():
    options = read_options()
    traces = options.trace or [f"{options.traces}/{name}_trace.jsonl" for name in ("conversation", "synthetic")]
    rows, panels = [], []
    for trace in traces:
        for cluster in options.clusters.split(","):
            field = Field(options, trace, cluster)
            with open(trace, encoding="utf-8") as lines:
                field.count = sum(1 for _ in lines)
            curves = compare(field, options, rows)
            for metric in ("goodput", "goodput tokens"):
                panels.append((f"{field.name}: {metric}", {policy: points for (name, policy), points in curves.items()
                                                           if name == metric}))
    if options.json:
        write("policies", rows, options.json)
    if options.svg:
        pathlib.Path(options.svg).write_text(lines_svg(panels, "speed, as a share of saturation", OURS), encoding="utf-8")


if __name__ == "__main__":
    main()
