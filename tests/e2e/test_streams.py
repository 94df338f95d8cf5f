"""Many streams at once: all answers right, nothing left behind. bench/bench_streams.py is the large one."""
import asyncio
import os
import pathlib
import sys

import pytest

from cluster import Served, until
from conftest import MODEL, ROOT
from streams import Load

sys.path.insert(0, str(ROOT / "bench"))
from bench_streams import differences, held  # noqa: E402 (needs the path above)

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


def load_of(served, streams, chat):
    """The bundled model is asked what it can know; one without training, everything twice."""
    expect = "code" if served.model == "lookup" else "same"
    return Load(served.address, served.model, streams, pages=(4, 12), chat=chat, expect=expect)


def test_many_streams_are_answered_right_and_leave_nothing_behind(served):
    warm = load_of(served, 2, False)
    asyncio.run(warm.run(0.5))  # connections between the roles stay
    before, pids = held(served), served.members()
    for chat in (False, True):
        load = load_of(served, STREAMS, chat)
        asyncio.run(load.run(SECONDS / 2))
        assert load.counts["failed"] == 0, load.failures[:3]
        assert load.counts["wrong"] == 0, load.wrong[:3]
        assert load.counts["right"] >= STREAMS / 2 and load.counts["cached_tokens"] > 0
    until(lambda: not differences(before, held(served)), "all is as before", seconds=30)
    assert served.members() == pids
