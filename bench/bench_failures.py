#!/usr/bin/env python3
"""How long is a cluster less than whole when a role is lost under load? It should be five seconds at most.

    bench/bench_failures.py --json bench/results/DATE-failures.json

kill -9 and SIGSTOP of each role of `mooncake serve` (build/release) under load, --rounds times, with all that
tests/e2e/test_failures.py holds it to; here the time is taken, too: from the signal until a prompt that is asked again
comes from the pool. Exits with 1 where the median is more. A stopped role is noticed after a second (--stall=1s). Needs build/release/mooncake and
build/venv (make deps).
"""
import argparse
import os
import pathlib
import signal
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))
from results import write  # noqa: E402 (needs the path above)
from test_failures import ROLES, answers, lose  # noqa: E402

WHOLE_S = 5.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    expected, rows = answers(), []
    for role in ROLES:
        for number, name in ((signal.SIGKILL, "kill"), (signal.SIGSTOP, "stop")):
            took = [lose(role, number, expected) for _ in range(args.rounds)]
            rows.append({"case": f"{role} {name}", "metric": "whole again", "unit": "s", "value": statistics.median(took),
                         "min": min(took), "max": max(took), "n": len(took)})
            print(f"{role} {name}: {min(took):.2f} to {max(took):.2f} s", file=sys.stderr, flush=True)
    write("failures", rows, args.json)
    return any(row["value"] > WHOLE_S for row in rows)


if __name__ == "__main__":
    sys.exit(main())
