"""Many streams at once: all answers right, nothing left behind. bench/bench_streams.py is the large one."""
import argparse
import asyncio
import os
import pathlib
import sys

import pytest

from cluster import Served, until
from conftest import MODEL, ROOT

sys.path.insert(0, str(ROOT / "bench"))
from bench_streams import differences, held, load_of, start_values  # noqa: E402 (needs the path above)

STREAMS, SECONDS = 64, 5
LOOKUP = pathlib.Path(ROOT) / "models" / "lookup"


@pytest.fixture(name="served")
def _served():
    model = str(LOOKUP) if LOOKUP.exists() else MODEL
    served = Served("--kv-memory=128M", "--pool-memory=64M", "--sequences=16", "--queue=128",
                    model=model)
    served.model = os.path.basename(model)
    try:
        yield served
    finally:
        served.end()


def options_of(served, chat):
    """The bundled model is asked what it can know; one without training, everything twice."""
    return argparse.Namespace(model=served.model, pages_min=4, pages_max=12, chat=chat, seed=1,
                              expect="code" if served.model == "lookup" else "same")


def test_many_streams_are_answered_right_and_leave_nothing_behind(served):
    before, pids = start_values(served, options_of(served, False)), served.members()
    for chat in (False, True):
        load = load_of(served, options_of(served, chat), STREAMS)
        counts = load.counts
        # Only a stream's second question hits the pool, and a machine may stand still until its first is answered.
        asyncio.run(load.run(SECONDS / 2, enough=lambda counts=counts: counts["cached_tokens"] > 0))
        assert counts["failed"] == 0, load.failures[:3]
        assert counts["wrong"] == 0, load.wrong[:3]
        assert counts["right"] >= STREAMS / 2 and counts["cached_tokens"] > 0
    until(lambda: not differences(before, held(served)), "all is given back")
    assert served.members() == pids
