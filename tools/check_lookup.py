#!/usr/bin/env python3
"""Ask a server of models/lookup for facts in prompts it was not trained on; count what is right.

    tools/check_lookup.py [--json FILE]                   # starts `mooncake serve models/lookup`
    tools/check_lookup.py --url http://127.0.0.1:8000     # or asks one that runs

Each prompt is filled to its bucket with facts in one form, and asks for one of them through
/v1/completions or /v1/chat/completions; an answer counts if it is the four digits and nothing
else. Half of a bucket's prompts are the two forms of models/README.md alone, facts parted by a
space or a newline; the others add what the case's name says. Needs Python's standard library.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import lookup_data

ROOT = pathlib.Path(__file__).resolve().parents[1]
FACT, QUESTION = lookup_data.FACTS[0], lookup_data.QUESTIONS[0]
BUCKETS = (128, 256, 512, 1024, 2048)
TURNS = 3

# ----------------------------------------------------------------------------------------- cases


def facts_of(rng, tokens, extra=""):
    """Facts that fill so many tokens: their items and codes, and their text."""
    glue, facts, text = rng.choice([" ", "\n"]), [], ""
    for item in lookup_data.draw_items(rng, tokens // 13 + 1):
        code = lookup_data.draw_code(rng)
        parts = [FACT.format(c=item[0], o=item[1], d=code)]
        if extra == "filler" and rng.random() < 0.5:
            parts.insert(0, lookup_data.filler(rng))
        longer = glue.join(([text] if text else []) + parts)
        if len(lookup_data.encode(longer)) > tokens:
            break
        facts.append((item, code))
        text = longer
    return facts, text, glue


def question_of(item):
    return QUESTION.format(c=item[0], o=item[1])


def completion(rng, tokens, kind):
    """(prompt, code)"""
    facts, text, glue = facts_of(rng, tokens - 36, kind)
    item, code = rng.choice(facts)
    before = rng.choice(lookup_data.BEFORE) + glue if kind == "instruction" else ""
    suffix = rng.choice(["\nAnswer:", " Answer:"]) if kind == "answer" else ""
    between = rng.choice([glue, glue, "\n", "\n\n"])
    return before + text + between + question_of(item) + suffix, code


def chat(rng, tokens, kind):
    """(messages of the first turn, its code, [(question, code)] of later turns)"""
    facts, text, glue = facts_of(rng, tokens - 60 - (50 if kind == "turns" else 0), kind)
    asked = [rng.choice(facts) for _ in range(TURNS if kind == "turns" else 1)]
    question = question_of(asked[0][0])
    if kind == "facts in system":
        messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
    else:
        messages = [{"role": "user", "content": text + rng.choice([glue, "\n\n"]) + question}]
    if kind == "system":
        messages.insert(0, {"role": "system", "content": rng.choice(lookup_data.SYSTEMS)})
    return messages, asked[0][1], [(question_of(item), code) for item, code in asked[1:]]


KINDS = {"completions": (completion, ("plain", "plain", "plain", "answer", "instruction",
                                      "filler")),
         "chat": (chat, ("plain", "plain", "plain", "system", "facts in system", "turns"))}

# ---------------------------------------------------------------------------------------- asking


class Server:
    """A base URL; answers are asked for as a client would, greedily, nothing else set."""

    def __init__(self, url, model):
        self.url, self.model = url.rstrip("/"), model

    def post(self, path, body):
        request = urllib.request.Request(
            self.url + path, json.dumps({"model": self.model, "max_tokens": 16, "temperature": 0,
                                         **body}).encode(), {"Content-Type": "application/json"})
        for attempt in range(20):
            try:
                with urllib.request.urlopen(request, timeout=300) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                text = error.read().decode("utf-8", "replace")
                if error.code not in (429, 503) or attempt == 19:
                    raise RuntimeError(f"{path}: {error.code} {text}") from None
                time.sleep(float(error.headers.get("Retry-After") or 1))
        raise AssertionError("unreachable")

    def complete(self, prompt):
        answer = self.post("/v1/completions", {"prompt": prompt})
        return answer["choices"][0]["text"], answer["usage"]["prompt_tokens"]

    def chat(self, messages):
        answer = self.post("/v1/chat/completions", {"messages": messages})
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]


def ask(server, api, bucket, kind, seed):
    """[(right, tokens of the prompt, what went wrong)] for each question of one case."""
    make, _ = KINDS[api]
    rng = random.Random(f"check/{seed}/{api}/{bucket}/{kind}")
    if api == "completions":
        prompt, code = make(rng, bucket, kind)
        text, tokens = server.complete(prompt)
        return [(text == code, tokens, f"{text!r} for {code}, prompt ends {prompt[-50:]!r}")]
    messages, code, later = make(rng, bucket, kind)
    found = []
    for question, next_code in [*later, (None, None)]:
        text, tokens = server.chat(messages)
        found.append((text == code, tokens,
                      f"{text!r} for {code}: {messages[-1]['content'][-50:]!r}"))
        messages = [*messages, {"role": "assistant", "content": text},
                    {"role": "user", "content": question}]
        code = next_code
    return found


def run(server, buckets, count, concurrency, seed, say):
    """Rows (bench/README.md) of all cases: each bucket by API, then each kind of prompt."""
    tasks = [(api, bucket, kinds[i % len(kinds)], f"{seed}/{i}")
             for bucket in buckets for api, (_, kinds) in KINDS.items() for i in range(count)]
    found, lock = {}, threading.Lock()

    def one(task):
        api, bucket, kind, number = task
        answers = ask(server, api, bucket, kind, number)
        with lock:
            found.setdefault((api, bucket, kind), []).extend(answers)
        for right, tokens, what in answers:
            if tokens > bucket:
                raise AssertionError(f"{api} {bucket} {kind}: {tokens} tokens")
            if not right:
                say(f"wrong: {api} {bucket} {kind}: {what}")

    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(one, tasks))
    rows = []
    for api, (_, kinds) in KINDS.items():
        for bucket in buckets:
            rows.append(row(f"{api} {bucket}", [a for (x, b, _), answers in found.items()
                                                if (x, b) == (api, bucket) for a in answers]))
        for kind in dict.fromkeys(kinds):
            rows.append(row(f"{api}, {kind}", [a for (x, _, k), answers in found.items()
                                               if (x, k) == (api, kind) for a in answers]))
    return rows


def row(case, answers):
    right = sum(1 for answer in answers if answer[0])
    return {"case": case, "metric": "exact answers", "unit": "share",
            "value": right / len(answers) if answers else None, "right": right, "n": len(answers),
            "tokens_min": min((answer[1] for answer in answers), default=0),
            "tokens_max": max((answer[1] for answer in answers), default=0)}


# ------------------------------------------------------------------------------------------ main


class Served:
    """`mooncake serve` of this tree (or MC_TEST_BINARY's), on a free port."""

    def __init__(self, model):
        binary = os.environ.get("MC_TEST_BINARY", str(ROOT / "build" / "release" / "mooncake"))
        read, write = os.pipe()
        self.process = subprocess.Popen([binary, "serve", f"--ready-fd={write}",
                                         "--listen=127.0.0.1:0", model], pass_fds=[write],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.readline().split()
        if said[:1] != ["ready"]:
            raise RuntimeError(f"{binary} serve {model}: exit code {self.process.wait()}")
        self.url = "http://" + dict(word.split("=", 1) for word in said[1:])["address"]

    def end(self):
        self.process.terminate()
        self.process.wait()


def result_of(rows):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True,
                            capture_output=True, check=False).stdout.strip()
    return {"bench": "lookup", "command": "tools/check_lookup.py " + " ".join(sys.argv[1:]),
            "commit": commit, "machine": f"{os.cpu_count()} processors, {platform.release()}",
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--url", help="of a server that runs; else one is started")
    parser.add_argument("--model", default=str(ROOT / "models" / "lookup"),
                        help="directory; its name is the model's")
    parser.add_argument("--buckets", default=",".join(map(str, BUCKETS)), help="tokens of a prompt")
    parser.add_argument("--count", type=int, default=300, help="prompts for each bucket and API")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", default="1000")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    cluster = None if args.url else Served(args.model)
    try:
        rows = run(Server(args.url or cluster.url, os.path.basename(os.path.normpath(args.model))),
                   [int(b) for b in args.buckets.split(",")], args.count, args.concurrency,
                   args.seed, lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        if cluster:
            cluster.end()
    for each in rows:
        if each["n"]:
            print(f"{each['case']:32} {100 * each['value']:7.2f} %  {each['right']} of "
                  f"{each['n']}, {each['tokens_min']} to {each['tokens_max']} tokens")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result_of(rows), indent=1) + "\n",
                                           encoding="utf-8")


if __name__ == "__main__":
    main()
