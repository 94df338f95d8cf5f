#!/usr/bin/env python3
"""Time to the first token through the whole path, beside the prefill of `mooncake run --timing`.

    bench/bench_path.py --model /tmp/100m --json FILE [--rounds 5] [--tokens 2048] [--only loopback,reuse,slow-link]

Rows (bench/README.md has the shape):
    path loopback        served TTFT, cold, against the prefill time of `mooncake run`, alternating
    path reuse 95%       TTFT with 95 % of the prompt pulled from the pool, against cold
    path slow link       TTFT where moving the KVCache takes as long as computing it, against that time;
                         needs to make network namespaces
Each prompt is used once, so that nothing but what is meant comes from the pool. The model is one of
tools/make_checkpoint.py; the binary is build/release/mooncake. Uses tests/e2e's cluster.py.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from cluster import ByHand, Client, Process, until  # noqa: E402 (needs the path above)
from conftest import BINARY, environment  # noqa: E402

WORDS = ("cache page layer token prompt prefix block pool worker step chunk window region batch decode "
         "gateway master node queue lease transfer engine kernel tensor head").split()


def text_of(words, seed):
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(words))


def run_locally(model, text):
    """`mooncake run`: (seconds of prefill, tokens of the prompt)."""
    done = subprocess.run([BINARY, "run", model, "-p", text, "-n", "1", "--timing", "--json"],
                          capture_output=True, check=True, env=environment())
    timing = json.loads(done.stdout)["timing"]
    return timing["prefill_s"], timing["prefill_tokens"]


def words_for(model, tokens):
    """How many words make so many tokens, about."""
    return round(200 * tokens / run_locally(model, text_of(200, 0))[1])


def ask(client, text):
    """Seconds to the first token, and the answer."""
    answer = client.complete(text, max_tokens=2, ignore_eos=True, stream=True, logprobs=None)
    assert answer.status == 200 and answer.error is None, (answer.body, answer.error)
    return answer.first_s, answer


def row(case, values, peers, peer, metric="ttft"):
    value, other = statistics.median(values), statistics.median(peers)
    return {"case": case, "metric": metric, "unit": "s", "value": value, "min": min(values),
            "max": max(values), "n": len(values), "peer": peer, "peer_value": other,
            "ratio": value / other}


def say(text):
    print(text, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------- cases


def loopback(options):
    """Cold prompts, alternating with the same computation in one process."""
    words = words_for(options.model, options.tokens)
    cluster = ByHand(model=options.model, worker=["--kv-memory=256M"], node=["--memory=512M"])
    served, local = [], []
    try:
        ask(cluster.client, text_of(words, 1000))  # connections and pages are warm
        for i in range(options.rounds):
            text = text_of(words, i)
            local.append(run_locally(options.model, text)[0])
            served.append(ask(cluster.client, text)[0])
            say(f"loopback: run {local[-1]:.3f} s, served {served[-1]:.3f} s")
    finally:
        cluster.end()
    return [row("path loopback", served, local, "mooncake run --timing, prefill")]


def objects(cluster):
    return cluster.stats("master").get("store_objects", 0)


def reuse(options):
    """95 % of the prompt was computed by one worker and is pulled by the other."""
    words = words_for(options.model, options.tokens)
    cluster = ByHand(model=options.model, workers=["prefill", "prefill", "decode"],
                     worker=["--kv-memory=256M"], node=["--memory=1G"])
    cold, warm = [], []
    try:
        ask(cluster.client, text_of(words, 1000))
        for i in range(options.rounds):
            prefix, before = text_of(round(words * 0.95), i), objects(cluster)
            cluster.client.complete(prefix, max_tokens=1, headers={"X-Mooncake-Bar": "prefill-2"})
            until(lambda: objects(cluster) >= before + options.tokens * 0.95 // 16 - 2, "stored")
            cold.append(ask(cluster.client, text_of(words, 5000 + i))[0])
            text = prefix + " " + text_of(round(words * 0.05), 9000 + i)
            answer = cluster.client.complete(text, max_tokens=2, ignore_eos=True, stream=True,
                                             headers={"X-Mooncake-Bar": "prefill-1"})
            warm.append(answer.first_s)
            say(f"reuse: cold {cold[-1]:.3f} s, warm {warm[-1]:.3f} s, reused "
                f"{answer.header('reused-tokens')}, pulled {answer.header('pulled-bytes')} bytes")
    finally:
        cluster.end()
    return [row("path reuse 95%", warm, cold, "the same without reuse")]


def slow_link(options):
    """The link out of the prefill worker is as slow as the computation; no pool, which shares it."""
    from netns import Hosts  # pytest is needed there alone

    hosts = Hosts(["gateway", "prefill", "decode"])
    roles, served, larger, model = {}, [], [], os.path.basename(options.model)
    words = words_for(options.model, options.tokens)
    compute, tokens = run_locally(options.model, text_of(words, 0))
    with open(pathlib.Path(options.model) / "config.json", encoding="utf-8") as file:
        config = json.load(file)
    token_bytes = (2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] *
                   config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]))
    rate = tokens * token_bytes * 8 / compute * 1.05  # headers of TCP and IP
    say(f"slow link: {tokens} tokens, {tokens * token_bytes} bytes, compute {compute:.3f} s, "
        f"{rate / 1e6:.1f} Mbit/s")
    try:
        at = hosts.address
        roles["gateway"] = Process("gateway", f"--control={at('gateway')}:7200", "--insecure",
                                   "--listen=127.0.0.1:8000", options.model,
                                   before=hosts.before("gateway"))
        for name in ("prefill", "decode"):
            roles[name] = Process("worker", f"--role={name}", f"--name={name}", "--insecure",
                                  f"--gateway={at('gateway')}:7200", f"--listen={at(name)}:7300",
                                  "--kv-memory=256M", options.model, before=hosts.before(name))
        with hosts.inside("gateway"):
            ask(Client("127.0.0.1:8000", model=model), text_of(words, 1000))
        hosts.limit("prefill", rate)
        for i in range(options.rounds):
            text = text_of(words, i)
            compute, tokens = run_locally(options.model, text)
            larger.append(max(compute, tokens * token_bytes * 8 / rate))
            with hosts.inside("gateway"):
                served.append(ask(Client("127.0.0.1:8000", model=model), text)[0])
            say(f"slow link: larger {larger[-1]:.3f} s, served {served[-1]:.3f} s")
    finally:
        for role in roles.values():
            role.end()
        hosts.close()
    return [row("path slow link", served, larger, "the larger of compute and transfer")]


CASES = {"loopback": loopback, "reuse": reuse, "slow-link": slow_link}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--only", default=",".join(CASES), help="of " + ",".join(CASES))
    options = parser.parse_args()
    rows = []
    for name in options.only.split(","):
        rows += CASES[name](options)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()
    result = {"bench": "path", "command": "bench/bench_path.py " + " ".join(sys.argv[1:]),
              "commit": commit, "machine": f"{os.cpu_count()} processors, {platform.release()}",
              "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "rows": rows}
    for each in rows:
        print(f"{each['case']:18} {each['value']:8.3f} s  ({each['min']:.3f} to {each['max']:.3f}, "
              f"n={each['n']})  peer {each['peer_value']:.3f} s  ratio {each['ratio']:.3f}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
