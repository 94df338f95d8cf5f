"""mooncake bench transfer as a user runs it: figures, their JSON, and what it says when it cannot."""
import json

import pytest

from conftest import mooncake

SHORT = ["--seconds", "0.02", "--rounds", "2", "--working-set", "8M", "--block", "64K"]


@pytest.mark.parametrize("more, peer", [
    (["--transport", "self"], "memcpy"),
    (["--transport", "shm"], "memcpy"),
    (["--transport", "shm", "--memory", "attach"], "process_vm"),
    (["--transport", "tcp"], "sockets"),
    (["--transport", "tcp", "--checksum"], "sockets"),
])
def test_both_sides_move_the_bytes_and_are_told_side_by_side(tmp_path, more, peer):
    path = tmp_path / "figures.json"
    done = mooncake("bench", "transfer", *SHORT, *more, "--op", "write,read", "--batch", "1,4",
                    "--against", "raw", "--json", str(path))
    assert done.returncode == 0, done.stderr.decode()
    figures = json.loads(path.read_text())
    assert figures["bench"] == "transfer" and figures["command"].startswith("mooncake bench transfer")
    cases = [row["case"] for row in figures["rows"] if row["metric"] == "throughput"]
    assert [" ".join(case.split()[:4]) for case in cases] == [
        f"{more[1]} {op} 64K x{batch}" for op in ("write", "read") for batch in (1, 4)]
    for row in figures["rows"]:
        assert row["value"] > 0 and row["peer"] == peer and row["ratio"] > 0 and row["n"] == 2
    assert sum(row["metric"] == "latency" for row in figures["rows"]) == 2


def test_threads_share_one_engine():
    done = mooncake("bench", "transfer", *SHORT, "--threads", "1,4", "--transport", "shm,tcp")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 4


def test_wrong_usage_and_failure_are_told_apart():
    assert mooncake("bench").returncode == 2
    assert mooncake("bench", "store").returncode == 2
    assert mooncake("bench", "transfer", "--transport", "udp").returncode == 2
    done = mooncake("bench", "transfer", *SHORT, "--json", "/nonexistent/figures.json")
    assert done.returncode == 1 and b"/nonexistent/figures.json" in done.stderr
    help_text = mooncake("bench", "transfer", "--help")
    assert help_text.returncode == 0 and b"--working-set" in help_text.stdout
