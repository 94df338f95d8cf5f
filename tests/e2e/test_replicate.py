"""A hot prefix replicates itself: many ask for it, so a second node of the pool gets a copy."""
import re

import pytest

from cluster import ByHand, run_locally, until

PROMPT = " ".join(f"The code of box {i} is {i * 37 % 1000}." for i in range(24))
EAGER = "--replication=rate=100,gain=0.1,asked=4"  # little is lost by one pull on one machine


@pytest.fixture(name="cluster")
def by_hand():
    cluster = ByHand(nodes=2, gateway=[EAGER])
    yield cluster
    cluster.kill()


def ask(cluster):
    answer = cluster.client.complete(PROMPT, max_tokens=6)
    assert answer.status == 200, answer.body
    return answer


def pool_at_rest(cluster):
    """What the master counts, once something was put and nothing is being put."""
    found = cluster.stats("master")
    return found["store_committed_objects"] > 0 and found["store_tokens"] == 0 and found


def cached(answer):
    return answer.usage["prompt_tokens_details"]["cached_tokens"]


def test_what_many_ask_for_is_at_two_nodes_and_outlives_one(cluster):
    expected = run_locally(PROMPT, "-n", "6")
    assert ask(cluster).same_as(expected)
    # What is being written is an object, too. A token outlives its put by some seconds.
    pool = until(lambda: pool_at_rest(cluster), "blocks in the pool")
    objects = pool["store_objects"]
    assert objects >= 8

    def copied():
        assert ask(cluster).same_as(expected)
        return cluster.stats("prefill-1")["worker_puts_copied"] > 0
    until(copied, "a copy")
    until(lambda: cluster.stats("master")["store_replicas"] > objects, "replicas")
    until(lambda: cluster.stats("master")["store_objects"] == objects, "no more objects than before")

    ordered = until(lambda: re.findall(r"event=copy_ordered .* from=(\d+) to=(\d+) .*reason=hot_prefix",
                                       cluster.roles["gateway"].log()), "it says so")
    assert all(a != b for a, b in ordered)
    status, text = cluster.client.get("/metrics")
    assert status == 200 and "mooncake_gateway_copies_ordered_total" in text

    names = {line.split("node=")[1].split()[0]: name for name in ("node-1", "node-2")
             for line in cluster.roles[name].lines if "node=" in line}
    tokens = max(int(n) for n in re.findall(r"event=copy_ordered .* tokens=(\d+)",
                                            cluster.roles["gateway"].log()))
    assert tokens >= 128
    until(lambda: cached(ask(cluster)) >= tokens, "the prefix comes from the pool")
    put = until(lambda: pool_at_rest(cluster), "all that is ordered is copied")["store_committed_objects"]
    cluster.roles[names[ordered[0][0]]].kill()  # it moves nothing before it ends
    until(lambda: cluster.stats("master")["store_nodes"] == 1, "one node")

    def outlived():
        answer = ask(cluster)
        assert answer.same_as(expected)
        return cached(answer) >= tokens
    until(outlived, "the prefix comes from the other node")
    # From its copy there: at most the blocks behind the prefix were put anew.
    assert cluster.stats("master")["store_committed_objects"] - put <= objects - tokens // 16


def test_where_it_is_off_nothing_is_copied():
    cluster = ByHand(nodes=2, gateway=["--replication=off"])
    try:
        for _ in range(12):
            ask(cluster)
        assert cluster.stats("prefill-1")["worker_puts_copied"] == 0
        cluster.end()
    finally:
        cluster.kill()


def test_parameters_that_are_none_are_refused_by_name():
    with pytest.raises(AssertionError, match="replication"):
        ByHand(nodes=1, gateway=["--replication=rat=1"])
