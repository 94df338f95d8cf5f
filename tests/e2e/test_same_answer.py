"""The same request gives the same tokens and the same logprobs, bit for bit, however it is served."""
import concurrent.futures
import random
import signal

import pytest

from cluster import ByHand, run_locally, until
from conftest import BINARY

MUTANT = BINARY + "-mutant"  # tests/e2e/mutant.c

WORDS = "the cache of a prompt moves from page to page while layers go on computing".split()


def text_of(words, seed):
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(words))


PREFIX = text_of(250, 1)  # more tokens than a chunk of 512 holds
PROMPT = PREFIX + " and then " + text_of(20, 2)
COUNT = 24
PAGE_TOKENS = 16
EXPECTED = {}


def expected(prompt, *arguments):
    """`mooncake run`, once for each question."""
    key = (prompt, arguments)
    if key not in EXPECTED:
        EXPECTED[key] = run_locally(prompt, "-n", str(COUNT), "--ignore-eos", *arguments)
    return EXPECTED[key]


def ask(cluster, prompt=PROMPT, **fields):
    return cluster.client.complete(prompt, max_tokens=COUNT, ignore_eos=True, **fields)


def hold(answer, prompt=PROMPT, *arguments):
    assert answer.status == 200, answer.body
    assert answer.error is None, answer.error
    assert len(answer.tokens) == COUNT
    assert answer.same_as(expected(prompt, *arguments))


def moved(found, transport):
    """Bytes by one transport, whoever asked for them."""
    return sum(found[f'worker_transfer_{way}{{transport="{transport}"}}']
               for way in ("read", "written", "served"))


def stored(cluster, prompt=PROMPT):
    """Wait until the pool has all blocks of an answered prompt, and the gateway knows of them: puts go on behind the
    answer, and they are told on behind the puts."""
    least = (expected(prompt).usage["prompt_tokens"] + COUNT - 1) // PAGE_TOKENS

    def known():
        blocks = cluster.stats("master")["store_committed_objects"]
        # Before blocks it is told of a beginning and of the node.
        return blocks >= least and cluster.stats("gateway")["gateway_pool_events"] >= blocks + 2

    until(known, f"{least} blocks stored")


@pytest.mark.parametrize("transports", ["shm", "tcp"])
@pytest.mark.parametrize("chunk", ["64", "512"])
def test_cold_and_again_from_the_pool(transports, chunk):
    cluster = ByHand(worker=[f"--transports={transports}", f"--chunk={chunk}"],
                     node=[f"--transports={transports}"])
    try:
        cold = ask(cluster, stream=True)
        hold(cold)
        assert cold.done
        assert cold.header("prefill") == "prefill-1" and cold.header("decode") == "decode-1"
        assert cold.header("reused-tokens") == "0" and cold.header("pulled-bytes") == "0"
        stored(cluster)
        warm = ask(cluster)
        hold(warm)
        assert int(warm.header("reused-tokens")) > 0 and int(warm.header("pulled-bytes")) > 0
        hold(ask(cluster, temperature=0.8, seed=7, top_p=1, top_k=0), PROMPT, "--temperature", "0.8", "--seed", "7")
        decode = cluster.stats("decode-1")
        other = "tcp" if transports == "shm" else "shm"
        assert moved(decode, transports) > 0 and moved(decode, other) == 0
    finally:
        cluster.end()


@pytest.mark.parametrize("transports", ["shm", "tcp"])
def test_a_prefix_computed_by_one_worker_is_pulled_by_another(transports):
    cluster = ByHand(workers=["prefill", "prefill", "decode"],
                     worker=[f"--transports={transports}"], node=[f"--transports={transports}"])
    try:
        first = ask(cluster, PREFIX, headers={"X-Mooncake-Bar": "prefill-2"})
        assert first.header("prefill") == "prefill-1"
        stored(cluster, PREFIX)
        before = cluster.stats("prefill-2")
        second = ask(cluster, headers={"X-Mooncake-Bar": "prefill-1"})
        hold(second)
        assert second.header("prefill") == "prefill-2"
        pulled = int(second.header("pulled-bytes"))
        assert pulled > 0 and int(second.header("reused-tokens")) >= 160
        after = cluster.stats("prefill-2")
        name = f'worker_transfer_read{{transport="{transports}"}}'
        assert after[name] - before[name] >= pulled
    finally:
        cluster.end()


def test_beside_32_others():
    cluster = ByHand(workers=["prefill", "decode"])
    try:
        with concurrent.futures.ThreadPoolExecutor(33) as pool:
            others = [pool.submit(ask, cluster, text_of(20 + 7 * i, 100 + i)) for i in range(32)]
            hold(ask(cluster))
            for i, other in enumerate(others):
                answer = other.result()
                assert answer.status == 200 and answer.error is None
                if i % 8 == 0:
                    hold(answer, text_of(20 + 7 * i, 100 + i))
    finally:
        cluster.end()


def test_one_worker_for_both():
    cluster = ByHand(workers=["both"])
    try:
        hold(ask(cluster))
        stored(cluster)
        warm = ask(cluster)
        hold(warm)
        assert int(warm.header("reused-tokens")) > 0
    finally:
        cluster.end()


def test_the_holder_is_killed_before_the_pull():
    cluster = ByHand()
    try:
        hold(ask(cluster))
        stored(cluster)
        cluster.roles["node-1"].kill()
        hold(ask(cluster))
    finally:
        cluster.roles.pop("node-1").kill()
        cluster.end()


def test_the_holder_is_killed_during_the_pull():
    """Reads of the second prefill worker are slowed down, so that there is a middle to kill in."""
    cluster = ByHand(workers=["prefill", "prefill", "decode"], each={
        "prefill-2": ["--transports=hook:tcp", "--transport-settings=hook.delay_ns=40000000"]})
    try:
        hold(ask(cluster, headers={"X-Mooncake-Bar": "prefill-2"}))
        stored(cluster)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, cluster, headers={"X-Mooncake-Bar": "prefill-1"})
            # It may be over between two looks, when the machine stood still.
            until(lambda: asked.done() or cluster.stats("prefill-2").get("worker_prefilling", 0) > 0, "it pulls")
            cluster.roles["node-1"].send(signal.SIGKILL)
            answer = asked.result()
        hold(answer)
        assert answer.header("prefill") == "prefill-2"
    finally:
        cluster.roles.pop("node-1").kill()
        cluster.end()


@pytest.mark.parametrize("mutation", ["flip", "swap", "late", "off"])
@pytest.mark.parametrize("pulled", [False, True], ids=["handed-off", "pulled"])
def test_a_mutation_of_what_was_moved_shows(mutation, pulled):
    """What the tests above hold is worth something only if these spoil it."""
    cluster = ByHand(workers=["prefill", "prefill", "decode"], binary=MUTANT,
                     variables={"prefill-2" if pulled else "decode-1": {"MUTATION": mutation}})
    try:
        first = ask(cluster, headers={"X-Mooncake-Bar": "prefill-2"})
        if pulled:
            hold(first)
            stored(cluster)
            first = ask(cluster, headers={"X-Mooncake-Bar": "prefill-1"})
            assert first.header("prefill") == "prefill-2"
        assert first.status == 200 and first.error is None
        assert not first.same_as(expected(PROMPT))
    finally:
        cluster.end()
