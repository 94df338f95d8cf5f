#!/usr/bin/env python3
"""What prefix caching costs vLLM 0.5.1 on its host, while its GPUs wait: its own scheduler, timed without a GPU.

    pip download --no-deps vllm==0.5.1 && unzip vllm-0.5.1-*.whl -d vllm-0.5.1
    bench/bench_vllm_account.py --vllm vllm-0.5.1 --json bench/results/DATE-vllm-account.json

The papers' baseline. Its prefix cache hashes all tokens before each block of 16 ("The current hashing function is
O(L^2)", vllm/sequence.py), looks through a whole freed sequence for the block to evict (vllm/core/evictor_v1.py), and
touches every block of every sequence in each step (access_all_blocks_in_seq, get_all_computed_blocks). The scheduler
runs before each step, and nothing else runs meanwhile. Timed here is schedule(), with the cache full, and without one:
the difference for a prompt, by the square of its length, and for a step, by the tokens of its batch. Those are
vllm_hash_pair_s and vllm_cached_token_s of the simulator (src/sim/assume.h). What the scheduler imports besides
(torch, configurations, logging) is replaced by empty modules.
"""
import argparse
import enum
import logging
import pathlib
import statistics
import sys
import time
import types

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
from results import write  # noqa: E402 (needs the path above)

CASES = ((4000, 12), (16000, 12), (16000, 24), (60000, 6))  # tokens of a prompt, prompts that decode together
CACHE_TOKENS, BLOCK, STEPS = 1 << 20, 16, 64


class Device(enum.Enum):
    GPU = 1
    CPU = 2


class SamplingParams:
    best_of = n = 1
    use_beam_search = False
    prompt_logprobs = None


def load(folder):
    """vllm.core.scheduler and vllm.sequence of the unpacked wheel."""
    def module(name, path=None, **names):
        made = types.ModuleType(name)
        made.__dict__.update(names)
        if path:
            made.__path__ = [str(path)]
        sys.modules[name] = made

    package = pathlib.Path(folder).resolve() / "vllm"
    module("vllm", package)
    module("torch", Tensor=object)
    module("vllm.logger", init_logger=logging.getLogger)
    module("vllm.utils", Device=Device, Counter=object)
    module("vllm.config", CacheConfig=object, LoRAConfig=object, SchedulerConfig=object)
    module("vllm.lora", package / "lora")
    module("vllm.lora.request", LoRARequest=object)
    module("vllm.pooling_params", PoolingParams=object)
    module("vllm.sampling_params", SamplingParams=SamplingParams)
    module("vllm.core.block", package / "core" / "block")
    from vllm import sequence
    from vllm.core import scheduler
    return scheduler, sequence


class Host:
    def __init__(self, modules, caching):
        scheduler, self.sequence = modules
        scheduling = types.SimpleNamespace(
            use_v2_block_manager=False, embedding_mode=False, max_num_batched_tokens=1 << 17, max_num_seqs=256,
            max_model_len=1 << 17, chunked_prefill_enabled=False, delay_factor=0, num_lookahead_slots=0, policy="fcfs",
            preemption_mode=None)
        cache = types.SimpleNamespace(block_size=BLOCK, num_gpu_blocks=CACHE_TOKENS // BLOCK, num_cpu_blocks=1,
                                      sliding_window=None, enable_prefix_caching=caching)
        self.scheduler, self.count = scheduler.Scheduler(scheduling, cache, None), 0

    def prompt(self, tokens):
        """Another one, of tokens that no other has; seconds of the scheduling in which it begins."""
        self.count += 1
        ids = [(self.count * 7919 + i * 2654435761) % 32000 for i in range(tokens)]
        one = self.sequence.Sequence(self.count, {"prompt": None, "prompt_token_ids": ids}, BLOCK)
        group = self.sequence.SequenceGroup(str(self.count), [one], time.time(), SamplingParams())
        self.scheduler.add_seq_group(group)
        return self.step(), one

    def step(self):
        begin = time.perf_counter()
        scheduled = self.scheduler.schedule()[1].scheduled_seq_groups
        took = time.perf_counter() - begin
        for each in scheduled:
            each.seq_group.update_num_computed_tokens(each.token_chunk_size)
            each.seq_group.get_seqs()[0].append_token_id(5, {5: self.sequence.Logprob(0.0)})
        return took

    def end(self, one):
        one.status = self.sequence.SequenceStatus.FINISHED_STOPPED
        self.scheduler.free_seq(one)
        self.scheduler.free_finished_seq_groups()


def times(modules, caching, tokens, count):
    """(seconds of a prompt, seconds of a step, tokens in that), the cache full of prompts as long."""
    host = Host(modules, caching)
    for _ in range(CACHE_TOKENS // tokens + 1 if caching else 0):
        host.end(host.prompt(tokens)[1])
    prompts = [host.prompt(tokens)[0] for _ in range(count)]
    steps = [host.step() for _ in range(STEPS)]
    held = sum(group.get_seqs()[0].get_len() for group in host.scheduler.running)
    assert len(host.scheduler.running) == count
    return statistics.median(prompts), statistics.mean(steps), held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", required=True, help="where the wheel of 0.5.1 was unpacked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    modules, rows = load(args.vllm), []
    for tokens, count in CASES:
        found = {"vllm_hash_pair_s": [], "vllm_cached_token_s": []}
        for _ in range(args.rounds):
            plain, cached = (times(modules, caching, tokens, count) for caching in (False, True))
            found["vllm_hash_pair_s"].append((cached[0] - plain[0]) / tokens ** 2)
            found["vllm_cached_token_s"].append((cached[1] - plain[1]) / cached[2])
        for name, values in found.items():
            rows.append({"case": f"{count} prompts of {tokens}", "metric": name, "unit": "s", "value": statistics.median(values),
                         "min": min(values), "max": max(values), "n": len(values)})
    write("vllm account", rows, args.json)


if __name__ == "__main__":
    main()
