"""kill -9 and SIGSTOP of every role under load: nothing wrong, nothing lost but what must be, nothing left."""
import http.client
import os
import signal
import threading
import time

import pytest

from cluster import Served, alive, run_locally, until

COUNT = 40
WHOLE_S = 5.0
PROMPTS = [f"Question {i}: which page holds the layer of that token, and who computed it? " * 3
           for i in range(6)]
ROLES = ["master", "node-1", "prefill-1", "decode-1", "gateway"]


@pytest.fixture(name="expected", scope="module")
def answers():
    return [run_locally(prompt, "-n", str(COUNT), "--ignore-eos") for prompt in PROMPTS]


class Load:
    """Requests one after another from a few threads, streamed and not, until told to end."""

    def __init__(self, client, expected, threads=4):
        self.client, self.expected, self.stop = client, expected, threading.Event()
        self.right, self.broken_streams, self.wrong, self.unreached = 0, [], [], 0
        self.used = []  # (prefill, decode) of whatever ended well or said so
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        turn = number
        while not self.stop.is_set():
            which, stream = turn % len(PROMPTS), turn % 2 == 0
            turn += 1
            try:
                answer = self.client.complete(PROMPTS[which], max_tokens=COUNT, ignore_eos=True,
                                              stream=stream)
            except (OSError, http.client.HTTPException):
                with self.lock:
                    self.unreached += 1  # the gateway itself is away
                time.sleep(0.05)
                continue
            self._judge(which, stream, answer)

    def _judge(self, which, stream, answer):
        with self.lock:
            if answer.error is None and answer.status == 200 and answer.same_as(self.expected[which]):
                self.right += 1
            elif stream and answer.status == 200 and answer.error is not None and answer.tokens:
                self.broken_streams.append(answer)
            elif stream and answer.status == 200 and answer.error is None and not answer.done:
                self.unreached += 1  # cut off in the middle: only with the gateway
            elif answer.status == 503 and '"no_workers"' in answer.body:
                self.unreached += 1  # a gateway that has just started, before a worker registers
            else:
                self.wrong.append((answer.status, answer.body, answer.error, answer.tokens))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def nothing_held(served):
    """Every page is free, nothing is reserved, queued or running, no lease and no token is out."""
    for name in served.members():
        if name.startswith(("prefill", "decode")):
            found = served.stats(name)
            if not found or found["pages_free"] != found["pages"]:
                return False
            if any(found[what] for what in ("reservations", "queued", "prefilling", "decoding")):
                return False
    pool = served.stats("master")
    return pool and pool["store_tokens"] == 0 and pool["store_leases"] == 0


def hits_again(client, expected):
    """A prompt asked again comes from the pool."""
    answer = client.complete(PROMPTS[0], max_tokens=COUNT, ignore_eos=True)
    return (answer.status == 200 and answer.same_as(expected[0])
            and int(answer.header("reused-tokens")) > 0)


def asks(served, expected):
    try:
        return hits_again(served.client, expected)
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_lost_under_load(role, number, expected):
    served = Served("--prefill=2", "--decode=2", "--nodes=2", "--pool-memory=64M", "--kv-memory=32M",
                    "--threads=1")
    try:
        until(lambda: asks(served, expected), "a prompt asked again hits the pool")
        load = Load(served.client, expected)
        until(lambda: load.right >= 8, "load runs")
        pid = served.members()[role]
        served_before = load.right
        begin = time.monotonic()
        os.kill(pid, number)
        until(lambda: served.members()[role] != pid and not alive(pid), "it was started anew")
        until(lambda: asks(served, expected), "whole again, and the pool is hit")
        took = time.monotonic() - begin
        right = load.right
        until(lambda: load.right >= right + 8, "load goes on")
        load.end()
        assert not load.wrong, load.wrong[:3]
        assert load.right > served_before
        if role != "gateway":
            assert load.unreached == 0
        for broken in load.broken_streams:  # a clear error, and only for who touched that role
            assert broken.error["message"] and role in (broken.header("prefill"), broken.header("decode"))
        if role in ("master", "node-1"):
            assert not load.broken_streams
        assert took <= WHOLE_S + (1.0 if number == signal.SIGSTOP else 0), took
        until(lambda: nothing_held(served), "nothing is held")
    finally:
        assert served.end() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_the_supervisor_is_lost_under_load(number, expected):
    served = Served("--pool-memory=64M", "--kv-memory=32M", "--threads=1")
    pids = list(served.members().values())
    load = Load(served.client, expected)
    try:
        until(lambda: load.right >= 4, "load runs")
        served.process.send(number)
        if number == signal.SIGKILL:
            until(lambda: not any(alive(pid) for pid in pids), "no process is left behind", WHOLE_S)
        else:
            right = load.right
            until(lambda: load.right >= right + 8, "a stopped supervisor stops nobody else")
            assert load.unreached == 0 and not load.wrong and not load.broken_streams
    finally:
        load.end()
        if number == signal.SIGSTOP:
            served.process.send(signal.SIGCONT)
            assert served.end() == 0
        else:
            served.process.kill()
