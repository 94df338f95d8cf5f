"""mooncake sim and mooncake trace as a user runs them."""
import csv
import json
import re
import xml.dom.minidom

import pytest

import conftest


def mooncake(*arguments):
    """Bytes as text: names are ASCII here."""
    done = conftest.mooncake(*arguments)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "made.jsonl"
    run = mooncake("trace", "generate", "-n", "400", "--rate", "3", "--input-tokens", "6000",
                   "--output-tokens", "60", "--seed", "7", "-o", str(path))
    assert run.returncode == 0, run.stderr
    return path


def sim(trace, *arguments):
    return mooncake("sim", "--trace", str(trace), *map(str, arguments))


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def test_a_sweep_writes_a_table_json_csv_and_a_page(trace, tmp_path):
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    run = sim(trace, "-c", "2P+2D,3P+1D", "-p", "algorithm1,local", "-s", "1,2",
              *[word for kind, path in files.items() for word in (f"--{kind}", path)])
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 1 + 8
    rows = rows_of(files["json"])
    cases = {row["case"] for row in rows}
    assert len(cases) == 8 and "3P+1D local all 2x" in cases
    finished = [row["value"] for row in rows if row["metric"] == "finished"]
    assert finished == [1] * 8
    with files["csv"].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 * 400
    for line in lines[:400]:
        assert line["outcome"] == "finished" and line["reason"] in (
            "LEAST_TTFT", "LOCAL_PREFIX", "PULL_PREFIX")
        assert 0 < float(line["prefill_gpu_s"]) and 0 < float(line["ttft_s"])
        assert int(line["reused"]) < int(line["input"])
    page = files["html"].read_text()
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) == 2 * 3 + 8 * 4
    for picture in pictures:
        xml.dom.minidom.parseString(picture)
    assert "prefill_fixed_s" in page and not re.search(r'(src|href)="http', page)


def test_the_same_settings_give_the_same_figures(trace, tmp_path):
    texts = []
    for threads in (1, 2):
        path = tmp_path / f"{threads}.csv"
        run = sim(trace, "-c", "2P+2D", "-p", "random,algorithm1", "--seed", "3", "-j", threads,
                  "--csv", path)
        assert run.returncode == 0, run.stderr
        texts.append((run.stdout, path.read_text()))
    assert texts[0] == texts[1]


def test_baselines_failures_and_assumptions(trace, tmp_path):
    for kind in ("plain", "prefix", "chunked"):
        run = sim(trace, "-c", "4C", "--coupled", kind)
        assert run.returncode == 0, run.stderr
    path = tmp_path / "f.csv"
    run = sim(trace, "-c", "2P+2D", "--change", "30s:fail:1", "--change", "40s:join:1", "--csv", path)
    assert run.returncode == 0, run.stderr
    with path.open() as file:
        lines = list(csv.DictReader(file))
    assert any(line["prefill"] == "5" for line in lines)
    assert not any(line["prefill"] == "1" and float(line["arrival_s"]) > 30 for line in lines)
    mine = tmp_path / "mine.txt"
    mine.write_text(mooncake("sim", "--print-assumptions").stdout.replace(
        "prefill_token_s = 0.0001096", "prefill_token_s = 0.0005"))
    slow, fast = (sim(trace, "-c", "3P+2D", *more).stdout for more in (("--assume", mine), ()))
    assert float(slow.splitlines()[1].split()[8]) > float(fast.splitlines()[1].split()[8])


@pytest.mark.parametrize("arguments, says", [
    (["-c", "3X"], "cluster"),
    (["-p", "nonsense"], "nonsense"),
    (["-c", "1P+1C"], "do not mix"),
    (["-c", "4C", "-p", "algorithm1"], "coupled-"),
    (["-s", "0"], "--speed"),
    (["-s", "1,,2"], "--speed"),
    (["-a", "sometimes"], "--admission"),
    (["--gpu", "b17"], "a800"),
    (["--change", "soon:fail:1"], "--change"),
    (["--change", "9s:explode:1"], "--change"),
    (["--change", "9s:fail:99"], "no such instance"),
    (["--eviction", "fifo"], "--eviction"),
    (["extra"], "extra"),
    (["-c", "4P"], "nobody decodes"),
    (["-c", "4D+1S"], "nobody prefills"),
    (["--gbps", "1e-9"], "Gbps"),
    (["--csv", "/nowhere/at.all"], "cannot write /nowhere/at.all"),
])
def test_wrong_settings_say_which(trace, arguments, says):
    run = sim(trace, *arguments)
    assert run.returncode in (1, 2) and says in run.stderr, run.stderr
    assert run.stdout == ""


def test_assumptions_beyond_the_clock_are_an_error(trace, tmp_path):
    mine = tmp_path / "mine.txt"
    for assumed, code in (("prefill_token_s = 1e6", 1), ("load_token_s = 1e6", 1), ("gpu.net_bytes_per_s = 1", 2)):
        mine.write_text(assumed + "\n")
        run = sim(trace, "-c", "1P+1D", "--assume", mine)
        assert run.returncode == code and run.stderr.count("\n") == 1, run.stderr
        assert ("hundreds of years" if code == 1 else "bytes a second") in run.stderr


def test_a_trace_is_cut_described_and_made_again(trace, tmp_path):
    part, like = tmp_path / "part.jsonl", tmp_path / "like.jsonl"
    assert mooncake("trace", "slice", str(trace), "--from", "20s", "--to", "60s", "-o",
                    str(part)).returncode == 0
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    assert 40 < len(lines) < 200 and lines[-1]["timestamp"] < 40000
    stats = json.loads(mooncake("trace", "stats", str(trace), "--json").stdout)
    assert stats["requests"] == 400 and stats["two_parents"] == 0
    assert mooncake("trace", "generate", "--like", str(trace), "-n", "400", "-o",
                    str(like)).returncode == 0
    made = json.loads(mooncake("trace", "stats", str(like), "--json").stdout)
    assert abs(made["rate"] / stats["rate"] - 1) < 0.2
    assert abs(made["hit_tokens"] - stats["hit_tokens"]) < 0.15
    whole = trace.read_text()
    run = mooncake("trace", "slice", str(trace), "--to", "9s", "-o", str(trace))
    assert run.returncode == 1 and "elsewhere" in run.stderr and trace.read_text() == whole
    run = mooncake("trace", "slice", str(trace), "--from", "9h")
    assert run.returncode == 1 and "no request in the part" in run.stderr
    assert mooncake("trace", "stats").returncode == 2
    assert mooncake("trace", "mangle", str(trace)).returncode == 2


def test_the_papers_experiments_run_on_what_is_there(trace, tmp_path):
    (tmp_path / "conversation_trace.jsonl").write_text(trace.read_text())
    path = tmp_path / "paper.json"
    run = mooncake("sim", "paper", "--traces", str(tmp_path), "--json", str(path))
    assert run.returncode == 0, run.stderr
    assert "trace not at hand" in run.stdout and "that have a bound are within it" in run.stdout
    rows = rows_of(path)
    assert {row["case"].split()[0] for row in rows} >= {f"B{i}" for i in (1, 2, 3, 4, 6, 9, 12)}
    for row in rows:
        assert row.get("peer", "paper") == "paper"
        assert (row["value"] is None) == (row.get("note") == "trace not at hand")
    b1 = [row["ratio"] for row in rows if row["case"].startswith("B1 ")]
    assert sum(row.get("note") == "bound 5 %: yes" for row in rows) == 10
    assert len(b1) == 10 and all(0.95 <= ratio <= 1.05 for ratio in b1)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert mooncake("sim", "paper", "--traces", str(empty)).returncode == 1
