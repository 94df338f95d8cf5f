"""What the Python benches share: processor time of a process, and the one shape of results."""
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def processor_ns(pid):
    """Nanoseconds on a processor, all threads that there are."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total


def write(bench, rows, path):
    """Print the rows; to the file, too, if there is one."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()
    result = {"bench": bench,
              "command": " ".join([f"bench/{pathlib.Path(sys.argv[0]).name}", *sys.argv[1:]]),
              "commit": commit, "machine": f"{os.cpu_count()} processors, {platform.release()}",
              "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "rows": rows}
    for each in rows:
        peer = f"  peer {each['peer_value']:.6g}  ratio {each['ratio']:.3f}" if "peer" in each else ""
        print(f"{each['case']:18} {each['metric']:24} {each['value']:.6g} {each['unit']}  "
              f"({each['min']:.6g} to {each['max']:.6g}, n={each['n']}){peer}")
    if path:
        pathlib.Path(path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
