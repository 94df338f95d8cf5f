"""Workers join and leave while others serve: nobody notices."""
import pytest

from cluster import ByHand, run_locally, until
from load import COUNT, PROMPTS, Load
from test_failures import excused, tried_again


@pytest.mark.parametrize("role", ["prefill", "decode"])
@tried_again
def test_one_joins_and_the_first_leaves_under_load(role):
    expected = [run_locally(prompt, "-n", str(COUNT), "--ignore-eos") for prompt in PROMPTS]
    cluster = ByHand(worker=["--threads=1"])
    load = Load(cluster.client, expected)
    with excused(lambda: cluster.roles["gateway"].log()):
        try:
            until(lambda: load.right >= 8, "load runs")
            cluster.start_worker(f"{role}-2")
            assert cluster.roles.pop(f"{role}-1").end() == 0  # it finishes what it has, and goes
            right = load.right
            until(lambda: load.right >= right + 8, "load goes on")
            last = cluster.client.complete(PROMPTS[0], max_tokens=COUNT, ignore_eos=True)
            assert last.header(role) == f"{role}-2"
        finally:
            load.end()
            cluster.end()
        assert not load.wrong and not load.broken_streams and load.unreached == 0
