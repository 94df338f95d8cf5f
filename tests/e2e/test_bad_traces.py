"""Traces as strangers have them: wrong, huge, endless. Each is refused with its line, in bounded memory."""
import json
import os
import resource
import subprocess

import pytest

import conftest
from conftest import BINARY, environment, mooncake

GOOD = {"timestamp": 5000, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
WHOLE = 'is not a whole number'


def line(**fields):
    """A good line but for some fields; None takes one away."""
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items()
                       if value is not None})


# What line 2 is, and what is said of it.
BAD = {
    "no time": (line(timestamp=None), "timestamp: is missing"),
    "no prompt": (line(input_length=None), "input_length: is missing"),
    "no answer": (line(output_length=None), "output_length: is missing"),
    "no hashes": (line(hash_ids=None), "hash_ids: is missing"),
    "negative time": (line(timestamp=-1), "timestamp: -1 is negative"),
    "negative prompt": (line(input_length=-5), "input_length: -5 is negative"),
    "negative answer": (line(output_length=-1), "output_length: -1 is negative"),
    "negative hash": (line(hash_ids=[-1, 2]), "hash_ids: -1 is negative"),
    "empty prompt": (line(input_length=0, hash_ids=[]), "at least one token"),
    "time beyond clocks": (line(timestamp=2**60), "is too late for any clock"),
    "huge prompt": (line(input_length=2**24 + 1), "input_length: 16777217 is more than 16777216"),
    "huge answer": (line(output_length=10**30), "is more than 16777216"),
    "huge hash": (line(hash_ids=[1, 2**63]), "hash_ids: 9223372036854775808 is more than"),
    "thousands of digits": (line().replace("600", "6" * 5000), "is more than 16777216"),
    "half a token": (line(input_length=600.5), f"input_length: 600.5 {WHOLE}"),
    "exponent": (line().replace("5000", "5e3"), "timestamp: 5e3 has an exponent"),
    "not a number": (line(timestamp=float("nan")), "timestamp: is not a number"),
    "time as text": (line(timestamp="5000"), "timestamp: is not a number"),
    "hashes as text": (line(hash_ids="1, 2"), "hash_ids: is not an array"),
    "hashes as null": (line().replace("[1, 2]", "null"), "hash_ids: is not an array"),
    "too few hashes": (line(hash_ids=[1]), "hash_ids: 1 of them; 600 tokens in blocks of 512 make 2"),
    "too many hashes": (line(hash_ids=[1, 2, 3]), "hash_ids: 3 of them"),
    "back in time": (line(timestamp=4999), "timestamp: 4999 ms is before the 5000 ms"),
    "back by a fraction": (line(timestamp=4999.75), "timestamp: 4999.75 ms is before the 5000 ms"),
    "a field twice": (line()[:-1] + ', "timestamp": 6000}', "timestamp: comes twice"),
    "an array": (f"[{line()}]", "expected an object"),
    "not JSON": ("timestamp,input_length", "expected an object"),
    "half a line": (line()[:30], "at byte"),
    "something behind": (line() + " x", "expected nothing more"),
    "deep": (line()[:-1] + ', "x": ' + "[" * 99999 + "]" * 99999 + "}", "x: expected less nesting"),
    "long": (line()[:-1] + ', "x": "' + "x" * (2 << 20) + '"}', "is longer than 1048576 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named(tmp_path, name):
    path = tmp_path / "bad.jsonl"
    path.write_text(line() + "\n" + BAD[name][0] + "\n")
    for command in (["sim", "--trace", path], ["trace", "stats", path], ["trace", "slice", path]):
        run = mooncake(*map(str, command))
        said = run.stderr.decode()
        assert run.returncode == 1 and said.count("\n") == 1, said
        assert f"{path}:2: " in said and BAD[name][1] in said, said
        assert len(said) < len(str(path)) + 200


@pytest.mark.parametrize("text, says", [
    (b"", "no request in it"),
    (b"\n \r\n\n", "no request in it"),
    (b"\xef\xbb\xbf" + line().encode(), "byte order mark"),
    (line().encode("utf-16"), "expected an object"),
    (b"\x1f\x8b\x08" + bytes(range(255)), "expected an object"),
    (b'{"\xff": 1}', "expected UTF-8"),
    (b"\0" * 100, "expected an object"),
])
def test_what_is_no_trace_is_no_crash(tmp_path, text, says):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text)
    for command in (["sim", "--trace", path], ["trace", "stats", path]):
        run = mooncake(*map(str, command))
        assert run.returncode == 1 and says in run.stderr.decode(), run.stderr


def test_odd_but_right_traces_are_taken(tmp_path):
    path = tmp_path / "odd.jsonl"
    lines = [line(), "", line(output_length=0), line(timestamp=5000.25, more={"x": [1, None]}),
             line(timestamp=5001, input_length=1024, hash_ids=[7, 7]), line(timestamp=5001, hash_ids=[2, 1])]
    path.write_bytes("\r\n".join(lines).encode())
    run = mooncake("sim", "--trace", str(path))
    assert run.returncode == 0, run.stderr
    assert json.loads(mooncake("trace", "stats", str(path), "--json").stdout)["requests"] == 5


def measured(arguments, **options):
    """Run it: its exit code, what it said, and the most memory that it had, in MiB."""
    with subprocess.Popen([BINARY, *map(str, arguments)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, env=environment(), **options) as process:
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, said, usage.ru_maxrss / 1024


@pytest.mark.parametrize("late", [365 * 86400 * 1000, 9007199254740])
def test_a_request_after_ages_costs_no_memory(tmp_path, late):
    path, page = tmp_path / "late.jsonl", tmp_path / "late.html"
    path.write_text(line() + "\n" + line(timestamp=late, output_length=2**24) + "\n")
    code, said, mib = measured(["sim", "--trace", path, "--html", page, "--csv", tmp_path / "late.csv"])
    assert code == 0, said
    assert mib < 300 and page.stat().st_size < 8 << 20


def test_a_file_of_ten_gigabytes_without_a_line_is_refused_at_once(tmp_path):
    path = tmp_path / "sparse.jsonl"
    with path.open("wb") as file:
        file.write(line().encode() + b"\n")
        file.truncate(10 << 30)
    for command in (["sim", "--trace", path], ["trace", "stats", path], ["trace", "slice", path]):
        code, said, mib = measured(command)
        assert code == 1 and f"{path}:2: the line is longer than 1048576 bytes" in said, said
        assert mib < 200


@pytest.mark.parametrize("command", [["sim", "-t", "-", "-s", "1,2"], ["trace", "stats", "-"],
                                     ["trace", "generate", "--like", "-"]])
def test_a_trace_without_end_is_refused_when_memory_is_used_up(command):
    """Good lines, as many as are read."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        feed(writer)
    os.close(writer)
    code, said, mib = measured([*command, "--memory", "48M"], stdin=reader)
    os.close(reader)
    os.waitpid(pid, 0)
    assert code == 1 and "-:" in said and "MiB hold; take a part of it" in said, said
    assert mib < 400  # sanitizers keep what is freed


def feed(writer):
    """In a child: lines until nobody reads them, or for a minute of CPU."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    try:
        for n in range(10**9):
            first = n * 24
            text = line(timestamp=n, input_length=12288, hash_ids=list(range(first, first + 24)))
            os.write(writer, text.encode() + b"\n")
    except OSError:
        pass
    finally:
        os._exit(0)


def test_a_part_of_a_large_trace_is_enough(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for n in range(5000):
            file.write(line(timestamp=n, input_length=12288,
                            hash_ids=list(range(n * 24, n * 24 + 24))) + "\n")
    small = ["--memory", "4M"]
    assert mooncake("sim", "-t", str(path), *small).returncode == 1
    assert mooncake("sim", "-t", str(path), *small, "--limit", "100").returncode == 0
    assert mooncake("trace", "slice", str(path), "--from", "4s", "-o",
                    str(tmp_path / "end.jsonl")).returncode == 0
    assert len((tmp_path / "end.jsonl").read_text().splitlines()) == 1000


def test_what_is_no_file_is_said(tmp_path):
    for path, says in ((tmp_path, "is a directory"), (tmp_path / "none.jsonl", "No such file")):
        for command in (["sim", "-t"], ["trace", "stats"], ["trace", "slice"]):
            run = conftest.mooncake(*command, str(path))
            assert run.returncode == 1 and says in run.stderr.decode(), run.stderr
