#!/usr/bin/env python3
"""Write tests/data/models/logits/: tiny checkpoints and what `transformers` computes with them.

    pip install torch transformers      # made with torch 2.15, transformers 5.23
    tools/make_logit_fixtures.py        # from the repository's root

Each folder is a checkpoint by make_checkpoint.py and a file expected.bin, all of it little-endian:

    u32 tokens, rows, vocab
    u32 token[tokens]           the sequence
    u32 best[tokens]            the likeliest next token after each position
    f32 best_logit[tokens]      and its logit
    u32 position[rows]          the positions whose logits follow in full
    f32 logit[rows][vocab]

The weights are drawn so that a mistake shows: attention is peaked, norms and biases are far from 1
and 0, eps is not negligible beside the activations, and sequences are longer than the original
context of the RoPE scaling. The script proves it: every small change of MUTATIONS must move
transformers' own logits by at least three times the bound that tests/unit/infer/test_logits.c holds
ours to, and computing in F64 must not move them by more than a fifth of it.
"""
import copy
import os
import struct
import sys

import torch
import transformers

import make_checkpoint
from make_checkpoint import Shape

OUT = "tests/data/models/logits"
BOUND = 1e-4  # of the largest |logit|; the same as in test_logits.c
TOKENS = 133  # eight pages and five tokens

PEAKED = {"q_proj.weight": 2.0, "k_proj.weight": 2.0, "q_norm.weight": 6.0, "k_norm.weight": 6.0,
          "norm.weight": 3.0, "bias": 5.0, "embed_tokens.weight": 2.0, "lm_head.weight": 3.0}
COMMON = dict(vocab=97, context=512, dtype="f32", eps=1e-3, scales=PEAKED)

SHAPES = {
    "llama3": Shape(arch="llama", hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16,
                    intermediate=48, rope_scaling="llama3", rope_factor=8.0,
                    rope_original_context=32, rope_theta=20.0, seed=1, **COMMON),
    "llama-linear": Shape(arch="llama", hidden=32, layers=2, heads=4, kv_heads=4, intermediate=48,
                          rope_scaling="linear", rope_factor=3.0, tied=True, seed=2, **COMMON),
    "llama-bias": Shape(arch="llama", hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48,
                        attention_bias=True, seed=3, **COMMON),
    "qwen2": Shape(arch="qwen2", hidden=40, layers=3, heads=5, kv_heads=1, intermediate=52,
                   tied=True, seed=4, **COMMON),
    "qwen3": Shape(arch="qwen3", hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16,
                   intermediate=48, rope_theta=1e6, seed=5, **COMMON),
    "llama-bf16": Shape(arch="llama", hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48,
                        rope_scaling="llama3", rope_factor=8.0, rope_original_context=32,
                        rope_theta=20.0, seed=6, **{**COMMON, "dtype": "bf16"}),
}


def rope(field, factor):
    def change(config, _):
        config.rope_parameters[field] *= factor
    return change


def eps(factor):
    def change(config, _):
        config.rms_norm_eps *= factor
    return change


def weight(name, index, step):
    def change(_, weights):
        weights[name].view(-1)[index] += step
    return change


def all_layers(name, index, step):
    return {f"{name}[{index}] of layer {layer}": weight(f"model.layers.{layer}.{name}", index, step)
            for layer in (0, 1)}


# The same list is in test_logits.c.
EVERY = {"theta": rope("rope_theta", 1.01), "eps": eps(1.1),
         "final norm": weight("model.norm.weight", 0, 0.01),
         **all_layers("input_layernorm.weight", 1, 0.01),
         **all_layers("post_attention_layernorm.weight", 2, 0.01)}
LLAMA3 = {"factor": rope("factor", 1.02), "low_freq": rope("low_freq_factor", 1.05),
          "high_freq": rope("high_freq_factor", 1.05),
          "original context": rope("original_max_position_embeddings", 1.05)}
QKV_BIAS = {**all_layers("self_attn.q_proj.bias", 0, 0.01),
            **all_layers("self_attn.k_proj.bias", 0, 0.01),
            **all_layers("self_attn.v_proj.bias", 0, 0.01)}
MUTATIONS = {
    "llama3": {**EVERY, **LLAMA3},
    "llama-linear": {**EVERY, "factor": rope("factor", 1.02)},
    "llama-bias": {**EVERY, **QKV_BIAS, **all_layers("self_attn.o_proj.bias", 0, 0.01)},
    "qwen2": {**EVERY, **QKV_BIAS},
    "qwen3": {**EVERY, **all_layers("self_attn.q_norm.weight", 3, 0.01),
              **all_layers("self_attn.k_norm.weight", 3, 0.01)},
    "llama-bf16": {**EVERY, **LLAMA3},
}


def logits(config, weights, tokens, dtype=torch.float32, attentions=None):
    model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config),
                                                          attn_implementation="eager")
    model = model.eval().to(dtype)
    model.load_state_dict({name: value.to(dtype) for name, value in weights.items()})
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_attentions=attentions is not None)
    if attentions is not None:
        attentions.extend(out.attentions)
    return out.logits[0].double()


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def peak(attentions):
    """The mean, over heads and the later positions, of the largest attention weight."""
    return torch.stack([a[0, :, 32:].max(-1).values.mean() for a in attentions]).mean().item()


def write_expected(path, tokens, reference):
    reference = reference.float()
    best = reference.argmax(-1)
    positions = [0, 1, 15, 16, 31, 64, 127, 128, TOKENS - 1]
    with open(path, "wb") as file:
        file.write(struct.pack("<3I", len(tokens), len(positions), reference.shape[1]))
        file.write(struct.pack(f"<{len(tokens)}I", *tokens))
        file.write(struct.pack(f"<{len(tokens)}I", *best.tolist()))
        file.write(struct.pack(f"<{len(tokens)}f", *reference.max(-1).values.tolist()))
        file.write(struct.pack(f"<{len(positions)}I", *positions))
        for position in positions:
            file.write(struct.pack(f"<{reference.shape[1]}f", *reference[position].tolist()))


def make(name, shape):
    folder = os.path.join(OUT, name)
    make_checkpoint.write_checkpoint(folder, shape)
    # BF16 weights are computed with in F32: what is compared is our arithmetic, not its rounding.
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config, weights = model.config, model.state_dict()
    tokens = [(7 + 31 * i + i * i // 5) % shape.vocab for i in range(TOKENS)]
    attentions = []
    reference = logits(config, weights, tokens, attentions=attentions)
    noise = distance(logits(config, weights, tokens, dtype=torch.float64), reference)
    print(f"{name}: largest logit {reference.abs().max():.2f}, attention peak {peak(attentions):.2f}, "
          f"F64 differs by {noise:.1e}")
    ok = noise < BOUND / 5 and peak(attentions) > 0.25
    for what, change in MUTATIONS[name].items():
        changed, values = copy.deepcopy(config), {k: v.clone() for k, v in weights.items()}
        change(changed, values)
        moved = distance(logits(changed, values, tokens), reference)
        ok = ok and moved > 3 * BOUND
        print(f"  {what}: moves logits by {moved:.1e}{'' if moved > 3 * BOUND else '  TOO LITTLE'}")
    write_expected(os.path.join(folder, "expected.bin"), tokens, reference)
    return ok


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    results = [make(name, shape) for name, shape in SHAPES.items()]
    if not all(results):
        sys.exit("a fixture does not tell right from wrong: change its scales or its seed")


if __name__ == "__main__":
    main()
