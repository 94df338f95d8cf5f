"""Clusters whose workers are models of time: the same roles and protocol, recorded and played again."""
import collections
import concurrent.futures
import csv
import json
import os
import re
import signal
import threading

import pytest

from cluster import ByHand, Served, until
from conftest import ROOT, mooncake

LOOKUP = str(ROOT / "models" / "lookup")
# Times in milliseconds instead of seconds, so that a test is short.
PROFILE = """
prefill_fixed_s = 0.002
prefill_token_s = 1e-6
prefill_pair_s = 0
step_fixed_s = 0.002
step_sequence_s = 1e-5
join_fixed_s = 0.001
store_tail_s = 0.001
link_latency_s = 0.001
"""


def profile(folder):
    path = folder / "profile"
    path.write_text(PROFILE, encoding="utf-8")
    return path


# Slow enough that a busy machine under a sanitizer is not what is overloaded.
SLOW = PROFILE.replace("prefill_fixed_s = 0.002", "prefill_fixed_s = 0.03").replace(
    "step_fixed_s = 0.002", "step_fixed_s = 0.01")


def timing(folder, *arguments):
    return Served("--engine=timing", f"--profile={profile(folder)}", "--pool-memory=64M", *arguments, model=LOOKUP)


def replay(path, *arguments):
    done = mooncake("sim", "--replay", str(path), *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def bench(served, *arguments):
    done = mooncake("bench", "serve", "--url", f"http://{served.address}", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def is_ready(served):
    try:
        return served.client.get("/health/ready")[0] == 200
    except OSError:
        return False


def sent(served):
    """So many requests of 512 tokens that share half, and all are answered."""
    out = bench(served, "--rate=40", "--duration=3s", "--input-tokens=512", "--shared-prefix=256",
                "--output-tokens=8")
    found = re.search(r"(\d+) sent = (\d+) answered \+ 0 refused \+ 0 failed", out)
    assert found and found.group(1) == found.group(2), out
    return int(found.group(1))


def test_a_cluster_without_weights_answers_alike_and_plays_again(tmp_path):
    recording = tmp_path / "recording"
    served = timing(tmp_path, "--prefill=3", "--decode=2", f"--record={recording}")
    try:
        body = {"prompt": list(range(10, 300)), "max_tokens": 12, "temperature": 0}
        answers = [served.client.complete(**body).tokens for _ in range(4)]
        assert len(answers[0]) == 12 and all(answer == answers[0] for answer in answers)
        requests = sent(served)
    finally:
        assert served.end() == 0
    code, out, _ = replay(recording, "--json", str(tmp_path / "replay.json"))
    assert code == 0, out
    assert "the same decisions, byte for byte" in out and "; whole" in out
    rows = {row["metric"]: row["value"] for row in json.loads((tmp_path / "replay.json").read_text())["rows"]}
    assert rows["same decisions"] == 1 and rows["decisions"] >= requests + 4


def test_refusals_are_recorded_with_their_reasons(tmp_path):
    recording = tmp_path / "recording"
    served = timing(tmp_path, f"--record={recording}", "--slo-ttft=20ms", "--admission-parameters=observations=1")
    try:
        out = bench(served, "--rate=150", "--duration=3s", "--input-tokens=2048", "--output-tokens=2")
    finally:
        assert served.end() == 0
    refused = int(re.search(r"(\d+) refused", out).group(1))
    assert refused > 0, out
    code, out, _ = replay(recording)
    assert code == 0, out
    assert re.search(r"refused \d+: the first token would be late", out), out
    told = re.findall(r"^  refused (\d+): (.+)$", out, re.M)
    assert sum(int(count) for count, _ in told) == int(re.search(r"(\d+) refused, ", out).group(1))
    assert all(reason not in ("", "no reason") for _, reason in told)


def test_who_finds_no_memory_and_who_finds_nobody_are_told_so(tmp_path):
    """Without an objective: the one worker that decodes is full, and then it is gone."""
    tight = tmp_path / "tight"
    weights, token = 2 * 7.06e10, 2 * 2 * 80 * 8 * 128  # bytes, of llama3-70b
    tight.write_text(PROFILE.replace("step_fixed_s = 0.002", "step_fixed_s = 0.2")
                     + f"gpu.bytes = {(weights + 1100 * token) / (8 * 0.9):.0f}\n", encoding="utf-8")  # 1,100 tokens
    cluster = ByHand(model=LOOKUP, worker=("--engine=timing", f"--profile={tight}"), gateway=("--patience=300ms",))

    def ask(tokens, output):
        return cluster.client.complete(list(range(10, 10 + tokens)), max_tokens=output)

    def told():
        """How many were refused, by reason, once the log and the counters say the same: its last line may come late."""
        log, text = cluster.roles["gateway"].log(), cluster.client.get("/metrics")[1]
        ended = re.findall(r"event=request_end .* how=refused .* reason=(\S+) decision_reason", log)
        counted = re.findall(r'refused_total{reason="(\S+)"} (\d+)$', text, re.M)
        reasons = collections.Counter(ended)
        return reasons if reasons == {reason: int(count) for reason, count in counted if int(count)} else None

    try:
        answers = []
        first = threading.Thread(target=lambda: answers.append(ask(560, 60)))
        first.start()
        until(lambda: cluster.stats("decode-1").get("worker_decoding"), "it decodes")
        full = ask(600, 1)
        first.join()
        assert answers[0].status == 200 and len(answers[0].tokens) == 60
        assert (full.status, full.header("refused")) == (429, "kv_memory")
        cluster.roles["decode-1"].kill()
        until(lambda: ask(100, 1).header("refused") == "no_instance", "nobody is there")
        reasons = until(told, "log and counters tell the same")
    finally:
        cluster.kill()
    assert set(reasons) == {"kv_memory", "no_instance"}


def test_who_cannot_be_done_in_time_is_refused_and_who_is_not_is_given_up(tmp_path):
    path = tmp_path / "slow"
    path.write_text(PROFILE.replace("prefill_fixed_s = 0.002", "prefill_fixed_s = 1")
                    .replace("step_fixed_s = 0.002", "step_fixed_s = 0.1"), encoding="utf-8")
    cluster = ByHand(model=LOOKUP, worker=("--engine=timing", f"--profile={path}"),
                     gateway=("--request-timeout=2s", "--admission-parameters=observations=1",
                              f"--record={tmp_path / 'recording'}"))

    def ask(output=1):
        return cluster.client.complete(list(range(10, 110)), max_tokens=output)

    def refused_of_four():
        """The prefill takes 1 s: the third and the fourth would have to wait for two."""
        with concurrent.futures.ThreadPoolExecutor(4) as four:
            answers = list(four.map(lambda _: ask(), range(4)))
        return next((answer for answer in answers if answer.header("refused") == "deadline"), None)

    try:
        given_up = ask(output=100)
        refused = until(refused_of_four, "a refusal")
        cluster.end()
    finally:
        cluster.kill()
    log = cluster.roles["gateway"].log()  # whole: it has ended
    code, out, _ = replay(tmp_path / "recording")
    assert code == 0 and "the same decisions, byte for byte" in out, out
    assert (given_up.status, refused.status) == (504, 429)
    assert given_up.error["code"] == "deadline" and int(refused.headers["retry-after"]) >= 1
    assert re.search(r"event=request_end .* status=MC_E_TIMEOUT ", log)
    assert re.search(r"event=request_end .* how=refused .* reason=deadline ", log)


def told_alike(served, path, recording):
    """Who was refused, by reason: clients, the log, the counters and the replay say the same. Returns that."""
    with open(path, encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    refused = collections.Counter(line["reason"] for line in lines if line["outcome"] == "refused")
    log = served.process.log()
    if "event=log_lines_lost" not in log:  # a supervisor that comes too late to read loses lines, and says so
        assert refused == collections.Counter(re.findall(r"event=refused request=\S+ reason=(\S+)", log))
        ended = re.findall(r"event=request_end .* how=refused .* reason=(\S+) decision_reason", log)
        assert refused == collections.Counter(ended) + collections.Counter(queue_full=refused["queue_full"])
    code, out, _ = replay(recording)
    assert code == 0 and "the same decisions, byte for byte" in out, out
    assert sum(int(n) for n in re.findall(r"^  refused (\d+): ", out, re.M)) == \
        sum(refused.values()) - refused["queue_full"]
    return refused


@pytest.mark.parametrize("policy", ["conductor", "algorithm1"])
def test_under_overload_every_refusal_has_its_reason_and_plays_again(tmp_path, policy):
    recording, slow = tmp_path / "recording", tmp_path / "slow"
    slow.write_text(SLOW, encoding="utf-8")
    served = timing(tmp_path, f"--profile={slow}", "--prefill=2", f"--policy={policy}", f"--record={recording}",
                    "--slo-ttft=200ms", "--slo-tbt=80ms", "--admission-parameters=observations=1")
    slack = {"x-slo-ttft-ms": "60000", "x-slo-tpot-ms": "60000"}
    try:
        for _ in range(4):  # under load a machine that stumbles may serve nobody token by token
            served.client.complete(list(range(10, 40)), headers=slack, max_tokens=12)
        bench(served, "--rate=150", "--duration=4s", "--input-tokens=256", "--shared-prefix=64", "--output-tokens=12",
              "--csv", str(tmp_path / "live.csv"))
        text = served.client.get("/metrics")[1]
    finally:
        assert served.end() == 0
    refused = told_alike(served, tmp_path / "live.csv", recording)
    assert refused["ttft_slo"] > 0 and set(refused) <= {"ttft_slo", "tbt_slo", "decode_load", "queue_full"}, refused
    for reason, count in refused.items():
        assert re.search(rf'refused_total{{reason="{reason}"}} {count}$', text, re.M), (reason, count)
    # The scheduler is told the longest gaps of whoever was served; a step is 10 ms.
    gaps = [int(us) for us in re.findall(r"how=length .* gaps_us=(\d+)", served.process.log())]
    assert gaps and max(gaps) >= 1000
    options = recording.read_bytes()[:4096]
    assert f"policy={policy}".encode() in options


def test_more_at_once_than_are_taken_are_refused_for_that(tmp_path):
    recording = tmp_path / "recording"
    served = timing(tmp_path, "--requests=8", f"--record={recording}")
    try:
        bench(served, "--concurrency=32", "--limit=200", "--input-tokens=2048", "--output-tokens=8", "--csv",
              str(tmp_path / "live.csv"))
    finally:
        assert served.end() == 0
    assert set(told_alike(served, tmp_path / "live.csv", recording)) == {"queue_full"}


def test_a_gateway_that_is_killed_leaves_a_recording_that_plays(tmp_path):
    recording = tmp_path / "recording"
    served = timing(tmp_path, f"--record={recording}")
    try:
        sent(served)
        pid = served.members()["gateway"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: served.members()["gateway"] != pid, "started again")
        until(lambda: os.path.exists(f"{recording}.1"), "another recording")
        until(lambda: is_ready(served), "ready")
        sent(served)
    finally:
        assert served.end() == 0
    code, out, _ = replay(recording)
    assert code == 0 and "; whole" not in out, out
    code, out, _ = replay(f"{recording}.1")
    assert code == 0 and "; whole" in out, out


def test_a_recording_that_was_changed_is_found_out(tmp_path):
    recording = tmp_path / "recording"
    served = timing(tmp_path, f"--record={recording}")
    try:
        sent(served)
    finally:
        assert served.end() == 0
    content = bytearray(recording.read_bytes())
    content[len(content) // 2] ^= 1
    recording.write_bytes(content)
    code, _, error = replay(recording)
    assert code == 1 and "checksum" in error
    code, _, error = replay(tmp_path / "profile")
    assert code == 1 and "not a recording" in error


@pytest.mark.parametrize("words, text", [
    (("--profile=z9-llama3-70b",), "neither a file nor"),
    (("--profile=a800-gpt5",), "neither a file nor"),
    (("--kv-scale=2",), "--kv-scale"),
])
def test_a_profile_that_there_is_not_is_said(words, text):
    done = mooncake("worker", LOOKUP, "--gateway=127.0.0.1:1", "--engine=timing", *words)
    assert done.returncode != 0 and text in done.stderr.decode()


def test_a_directory_that_has_no_weights_is_enough(tmp_path):
    model = tmp_path / "text-only"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((ROOT / "models" / "lookup" / name).read_bytes())
    served = Served("--engine=timing", f"--profile={profile(tmp_path)}", "--nodes=0", model=str(model))
    try:
        assert len(served.client.complete(prompt="red box", max_tokens=5).tokens) == 5
    finally:
        assert served.end() == 0
    done = mooncake("worker", str(model), "--gateway=127.0.0.1:1")
    assert done.returncode != 0 and "safetensors" in done.stderr.decode()
