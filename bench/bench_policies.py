#!/usr/bin/env python3
"""The policy `conductor` against Algorithm 1 and every peer policy, simulated, from idle to twice saturation.

    bench/bench_policies.py --traces DIR --json bench/results/DATE-policies.json --svg bench/results/DATE-policies.svg
    bench/bench_policies.py --traces DIR --quick

For each trace and cluster it looks for saturation: the lowest speed at which less than 90 % of the offered requests
finish within both objectives under Algorithm 1 with its own reject line. Then every policy runs at shares of that speed;
the peers with each admission of --admissions, and the best of them counts, speed by speed. Printed: goodput in
requests/s and input tokens/s, and for conductor against Algorithm 1 the ratio of both, the lowest difference of acceptance
in a decile of prompt lengths (points), the share of refusals that would have met their objectives, and the share of prefill
seconds that was wasted. Needs build/release/mooncake.
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
PEERS = ["dynamo", "lmetric", "llm-d", "sglang", "aibrix", "preble", "local", "least-loaded", "round-robin", "random"]
SHARES = [0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True, help="folder with conversation_trace.jsonl, synthetic_trace.jsonl")
    parser.add_argument("--trace", action="append", help="a file instead of those two; may be repeated")
    parser.add_argument("--clusters", default="8P+8D,10P+6D")
    parser.add_argument("--slo-ttft", default="30s")
    parser.add_argument("--slo-tbt", default="100ms")
    parser.add_argument("--admissions", default="all,early,early-system,early-request")
    parser.add_argument("--shares", help="of the speed at saturation: 0.5,1,1.3")
    parser.add_argument("--quick", action="store_true", help="Algorithm 1 with its reject line, and conductor, at four speeds")
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

    def run(self, policies, admissions, speeds, *more):
        """{(policy, admission, speed): figures}; both processors work."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [BINARY, "sim", "-t", self.trace, "-c", self.cluster, "-p", ",".join(policies), "-a",
                       ",".join(admissions), "-s", ",".join(f"{s:.6g}" for s in speeds), "--slo-ttft",
                       self.options.slo_ttft, "--slo-tbt", self.options.slo_tbt, "--json", file.name,
                       *self.options.sim.split(), *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            rows = json.loads(pathlib.Path(file.name).read_text(encoding="utf-8"))["rows"]
        cases = {}
        for row in rows:
            cases.setdefault(row["case"], {})[row["metric"]] = row["value"]
        keys = [(p, a, s) for p in policies for a in admissions for s in speeds]
        by_name = {f"{self.cluster} {p} {a} {s:g}x": (p, a, s) for p, a, s in keys}
        return {by_name[name]: figures for name, figures in cases.items()}

    def saturation(self):
        """To within 0.05 of the trace's own speed, from below."""
        def good(speeds):
            runs = self.run([PAPER], ["early"], speeds)
            return [runs[PAPER, "early", s]["within SLOs"] >= 0.9 for s in speeds]

        low = 0.25
        for step in (2, 0.4, 0.05):
            speeds = [round(low + step * (i + 1), 6) for i in range(10)]
            low = max([low] + [s for i, s in enumerate(speeds) if all(good_here for good_here in good(speeds)[:i + 1])])
        return round(low + 0.05, 6)


def worst_decile(ours, paper):
    names = [name for name in paper if name.startswith("finished, decile")]
    return min(100 * (ours[name] - paper[name]) for name in names)


def wasted(figures):
    spent = figures["prefill time"] * figures["finished"] * figures["offered"] + figures["wasted prefill"]
    return 100 * figures["wasted prefill"] / spent if spent else 0


def compare(field, options, rows):
    saturation = field.saturation()
    shares = [0.5, 1, 1.3, 2] if options.quick else SHARES
    if options.shares:
        shares = [float(s) for s in options.shares.split(",")]
    speeds = [round(saturation * s, 4) for s in shares]
    paper = field.run([PAPER], ["early"], speeds)
    ours = field.run([OURS], ["early-system"], speeds, "--policy-parameters", options.parameters,
                     "--admission-parameters", options.admission_parameters)
    others = {} if options.quick else field.run([PAPER, *PEERS], options.admissions.split(","), speeds)
    print(f"\n{field.name}: saturation at {saturation:g} x")
    print(f"{'share':>6} {'speed':>6} | {'good%':>6} {'paper':>6} {'ratio':>6} {'tokens':>6} | {'decile':>6} {'met%':>5} "
          f"{'waste%':>6} | best peer")
    curves = {}
    for share, speed in zip(shares, speeds):
        a, b = ours[OURS, "early-system", speed], paper[PAPER, "early", speed]
        a["offered"] = field.count
        best = [max(others.items(), key=lambda item: item[1][metric] if item[0][2] == speed else -1)
                for metric in ("goodput", "goodput tokens")] if others else []
        text = ", ".join(f"{key[0]} {key[1]} {a[metric] / run[metric]:.3f}"
                         for (key, run), metric in zip(best, ("goodput", "goodput tokens")))
        print(f"{share:6.2f} {speed:6.3g} | {100 * a['within SLOs']:6.2f} {100 * b['within SLOs']:6.2f} "
              f"{a['goodput'] / b['goodput']:6.3f} {a['goodput tokens'] / b['goodput tokens']:6.3f} | "
              f"{worst_decile(a, b):6.1f} {100 * a.get('refused but would have met', 0):5.1f} {wasted(a):6.2f} | {text}",
              flush=True)
        case = f"{field.name} {share:g} x saturation"
        runs = {(OURS, "early-system"): a, (PAPER, "early"): b}
        runs.update({key[:2]: run for key, run in others.items() if key[2] == speed and key[0] != PAPER})
        for metric, unit in (("goodput", "requests/s"), ("goodput tokens", "tokens/s")):
            for policy in {key[0] for key in runs}:
                value = max(run[metric] for key, run in runs.items() if key[0] == policy)
                row = {"case": f"{case} {policy}", "metric": metric, "unit": unit, "value": value, "min": value,
                       "max": value, "n": 1}
                if policy != PAPER and b[metric]:
                    row.update(peer=PAPER, peer_value=b[metric], ratio=value / b[metric])
                rows.append(row)
                curves.setdefault((metric, policy), []).append((share, value))
        for metric, unit, value in (("worst decile against " + PAPER, "points", worst_decile(a, b)),
                                    ("refused but would have met", "share", a.get("refused but would have met", 0)),
                                    ("wasted prefill", "share", wasted(a) / 100)):
            rows.append({"case": f"{case} {OURS}", "metric": metric, "unit": unit, "value": value, "min": value,
                         "max": value, "n": 1})
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
