#!/usr/bin/env python3
"""Write a random checkpoint of any shape that Mooncake runs, as a Hugging Face directory.

    tools/make_checkpoint.py --preset tiny models/tiny-random
    tools/make_checkpoint.py --preset 100m /tmp/100m
    tools/make_checkpoint.py --arch qwen3 --hidden 256 --layers 4 --heads 8 --kv-heads 2 \\
        --head-dim 64 --intermediate 512 --vocab 1000 --dtype f32 --shards 3 OUT
    tools/make_checkpoint.py --preset tiny --check models/tiny-random   # is it still what we make?

Its weights mean nothing: it is for tests, for trying the server, and for measuring speed, which
depends on the shape alone. Needs Python 3.9 or newer and nothing else.

The same arguments give the same bytes everywhere: every weight is drawn from SHAKE-128 of (seed,
name of the tensor), so that a tensor depends neither on its neighbours nor on the library's
generator of random numbers. The scales keep activations near 1 whatever the shape: matrices
1/sqrt(inputs), norms 1 +- 0.1, biases 0.1.
"""
import argparse
import collections
import dataclasses
import filecmp
import hashlib
import json
import math
import os
import re
import statistics
import struct
import sys
import tempfile

PRESETS = {
    "tiny": dict(arch="qwen2", hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32,
                 intermediate=384, vocab=512, context=4096, tied=True),
    "100m": dict(arch="llama", hidden=768, layers=12, heads=12, kv_heads=4, head_dim=64,
                 intermediate=2048, vocab=32000, context=4096, tied=True),
}

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclasses.dataclass
class Shape:
    """What is asked for. `scales` multiplies the usual scale of the tensors whose name it ends."""
    arch: str = "llama"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 0  # 0: hidden / heads
    intermediate: int = 128
    vocab: int = 512
    context: int = 4096
    dtype: str = "bf16"
    tied: bool = False
    attention_bias: bool = False  # llama and qwen3; qwen2 has its biases in any case
    shards: int = 1
    rope_scaling: str = "none"
    rope_factor: float = 8.0
    rope_original_context: int = 0  # llama3; 0: an eighth of the context
    rope_theta: float = 10000.0
    eps: float = 1e-6
    seed: int = 0
    scales: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.head_dim = self.head_dim or self.hidden // max(self.heads, 1)


# ------------------------------------------------------------------------------------- weights


def tensors(s):
    """(name, shape) of every tensor, in the order in which they are written."""
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    bias = s.attention_bias or s.arch == "qwen2"
    yield "model.embed_tokens.weight", (s.vocab, s.hidden)
    for layer in range(s.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (s.hidden,)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{prefix}self_attn.{part}_proj.weight", (rows, s.hidden)
            if bias:
                yield f"{prefix}self_attn.{part}_proj.bias", (rows,)
        if s.arch == "qwen3":
            yield prefix + "self_attn.q_norm.weight", (s.head_dim,)
            yield prefix + "self_attn.k_norm.weight", (s.head_dim,)
        yield prefix + "self_attn.o_proj.weight", (s.hidden, q)
        if bias and s.arch != "qwen2":
            yield prefix + "self_attn.o_proj.bias", (s.hidden,)
        yield prefix + "post_attention_layernorm.weight", (s.hidden,)
        yield prefix + "mlp.gate_proj.weight", (s.intermediate, s.hidden)
        yield prefix + "mlp.up_proj.weight", (s.intermediate, s.hidden)
        yield prefix + "mlp.down_proj.weight", (s.hidden, s.intermediate)
    yield "model.norm.weight", (s.hidden,)
    if not s.tied:
        yield "lm_head.weight", (s.vocab, s.hidden)


def mean_and_deviation(s, name, shape):
    factor = math.prod(f for end, f in s.scales.items() if name.endswith(end))
    if name.endswith("norm.weight"):
        return 1.0, 0.1 * factor
    if name.endswith(".bias"):
        return 0.0, 0.1 * factor
    return 0.0, factor / math.sqrt(shape[-1])


def bfloat16(value):
    """The upper half of the nearest F32 of fewer bits; ties do not matter here."""
    return (struct.unpack("<I", struct.pack("<f", value))[0] + 0x8000) >> 16


def weight_bytes(s, name, shape):
    """A normal distribution in 256 steps, whose lower bits are noise.

    One random byte chooses the step through two translation tables (the two bytes of a BF16), a
    second one gives the lowest bits: all of it in bytes.translate and one big OR, because a loop
    over a hundred million weights takes a minute here.
    """
    count = math.prod(shape)
    mean, deviation = mean_and_deviation(s, name, shape)
    normal = statistics.NormalDist()
    steps = [bfloat16(mean + deviation * normal.inv_cdf((i + 0.5) / 256)) for i in range(256)]
    noise_bits = 0x0F if mean == 0 else 0x01  # a norm's weights are near 1, where bits are coarse
    lows = bytes(step & 0xFF & ~noise_bits for step in steps)
    highs = bytes(step >> 8 for step in steps)
    noises = bytes(i & noise_bits for i in range(256))

    stream = hashlib.shake_128(f"{s.seed}/{name}".encode())
    draws = stream.digest(count * (4 if s.dtype == "f32" else 2))
    chosen, noise = draws[:count], draws[count:2 * count].translate(noises)
    low = int.from_bytes(chosen.translate(lows), "little") | int.from_bytes(noise, "little")
    width = 4 if s.dtype == "f32" else 2
    out = bytearray(count * width)
    out[width - 2::width] = low.to_bytes(count, "little")
    out[width - 1::width] = chosen.translate(highs)
    if s.dtype == "f32":
        out[0::4] = draws[2 * count:3 * count]
        out[1::4] = draws[3 * count:]
    return bytes(out)


def write_safetensors(path, s, names_and_shapes):
    width = 4 if s.dtype == "f32" else 2
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in names_and_shapes:
        begin, end = end, end + math.prod(shape) * width
        header[name] = {"dtype": s.dtype.upper(), "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begin aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in names_and_shapes:
            file.write(weight_bytes(s, name, shape))


def write_weights(out, s):
    every = list(tensors(s))
    if s.shards == 1:
        write_safetensors(os.path.join(out, "model.safetensors"), s, every)
        return
    total = sum(math.prod(shape) for _, shape in every)
    parts, seen = [[] for _ in range(s.shards)], 0
    for name, shape in every:
        parts[min(seen * s.shards // total, s.shards - 1)].append((name, shape))
        seen += math.prod(shape)
    weight_map = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{s.shards:05}.safetensors"
        write_safetensors(os.path.join(out, file), s, part)
        weight_map.update((name, file) for name, _ in part)
    width = 4 if s.dtype == "f32" else 2
    write_json(out, "model.safetensors.index.json",
               {"metadata": {"total_size": total * width}, "weight_map": weight_map})


# ------------------------------------------------------------------------------------ tokenizer

# What the merges are learnt from: plain prose, so that the commonest words become tokens.
TEXT = """
A model reads a text token by token, and for every token it has read it keeps a key and a value in
each of its layers. What it keeps is called the cache. When the next question begins with the same
words as the last one, the same keys and values would be computed again, and that work can be saved
if the cache is still there. So we keep it: in the memory of this machine, in the memory of the
machine beside it, and on the disk when there is no other room left. Whoever needs it asks where it
is, and it is brought to where the work is done, faster than it could be made again.
There are two kinds of work. To read the prompt is to compute many tokens at once; it wants all the
arithmetic there is. To write the answer is to compute one token after the other; it wants all the
memory bandwidth there is. When one machine does both, each waits for the other, and the reader of
the answer sees it stop and start. When they are apart, the first machine hands its cache to the
second, layer by layer, while it still computes, and neither has to wait.
What can not be served in time should not be begun. A server that takes every request is slow for
all of them; a server that says no at the door is fast for those that it lets in. How long will the
queue be? How many of the blocks of this prompt are known, and where? Which machine will be free the
soonest? The one that answers these questions decides where the work is done.
Hello! How are you today? I am fine, thank you. What is your name? You are a helpful assistant. Can
you tell me a story about the sea? Once upon a time there was a small boat that wanted to see the
world. It went out in the morning, with the wind behind it, and it came back in the evening, when the
light was going. What did it see? It saw the sun and the rain, the birds and the fish, and at the end
of the day it saw the harbour again, and that was the best of all. Please write a short program that
prints the numbers from one to ten. Yes, of course. Here is how you could do it. for (int i = 0;
i < 10; i++) printf("%d\\n", i); return 0; } The user asks, and the system answers. No, that is not
what I meant; let us try it again.
"""

QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA_PATTERN = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

CHATML_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}")
LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")

SPECIALS = {
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
               "<|eot_id|>"],
}


def byte_letters():
    """Byte-level BPE spells each byte as one printable character."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    letters, extra = {b: chr(b) for b in plain}, 256
    for b in range(256):
        if b not in letters:
            letters[b] = chr(extra)
            extra += 1
    return letters


def learn_merges(count, words=None):
    """Byte-pair encoding of words and how often they come (else TEXT's): the commonest pair, the
    first in the alphabet among equals."""
    letters = byte_letters()
    words = words or collections.Counter(
        re.findall(r" ?[A-Za-z]+| ?[^\sA-Za-z]+", TEXT.replace("\n", " ")))
    split = {word: [letters[b] for b in word.encode()] for word in sorted(words)}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, parts in split.items():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def fill_merges(merges, count):
    """More merges than TEXT teaches: join what is there, so that every id has a text."""
    known = {"".join(pair) for pair in merges}
    parts = [token for token in known if token.lstrip("Ġ").isalpha()]
    parts.sort(key=lambda token: (len(token), token))
    for first in parts:
        for second in parts:
            if len(merges) >= count:
                return merges
            if not second.startswith("Ġ") and first + second not in known:
                known.add(first + second)
                merges.append((first, second))
    return merges


def tokenizer(s, style, merges=None):
    """(ids of the special tokens, tokenizer.json); merges: else those that TEXT teaches."""
    letters, specials = byte_letters(), SPECIALS[style]
    room = s.vocab - 256 - len(specials)
    merges = merges or fill_merges(learn_merges(room), room)
    vocab = {letter: i for i, letter in enumerate(sorted(letters.values()))}
    for pair in merges:
        vocab.setdefault("".join(pair), len(vocab))
    ids = {token: len(vocab) + i for i, token in enumerate(specials)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    llama, bos = style == "llama3", specials[0]
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": bos, "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": bos, "type_id": 0}},
                         {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": bos, "type_id": 1}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}}}
    return ids, {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for token, i in ids.items()],
        "normalizer": None if llama else {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA_PATTERN if llama else QWEN_PATTERN},
             "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": ({"type": "Sequence", "processors": [byte_level, template]} if llama
                           else byte_level),
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": llama, "vocab": vocab,
                  "merges": [" ".join(pair) for pair in merges]},
    }


# ---------------------------------------------------------------------------------------- files


def write_json(out, name, value):
    with open(os.path.join(out, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def rope_scaling(s):
    if s.rope_scaling == "none":
        return None
    if s.rope_scaling == "linear":
        return {"rope_type": "linear", "factor": s.rope_factor}
    return {"rope_type": "llama3", "factor": s.rope_factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": s.rope_original_context or s.context // 8}


def config(s, bos, eos):
    """config.json; of the optional fields only those that the family has."""
    fields = {
        "architectures": [FAMILIES[s.arch]],
        "model_type": s.arch,
        "hidden_size": s.hidden,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "intermediate_size": s.intermediate,
        "vocab_size": s.vocab,
        "max_position_embeddings": s.context,
        "hidden_act": "silu",
        "rms_norm_eps": s.eps,
        "rope_theta": s.rope_theta,
        "rope_scaling": rope_scaling(s),
        "tie_word_embeddings": s.tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": "float32" if s.dtype == "f32" else "bfloat16",
    }
    if s.arch != "qwen2":
        fields["attention_bias"] = s.attention_bias
    if s.arch == "qwen3" or s.head_dim * s.heads != s.hidden:
        fields["head_dim"] = s.head_dim
    return fields


def write_text_files(out, s, style):
    ids, tokenizer_json = tokenizer(s, style)
    llama = style == "llama3"
    eos = "<|eot_id|>" if llama else "<|im_end|>"
    end = "<|end_of_text|>" if llama else "<|endoftext|>"
    bos = "<|begin_of_text|>" if llama else None
    write_json(out, "tokenizer.json", tokenizer_json)
    write_json(out, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast" if llama else "Qwen2Tokenizer",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": end,
        "model_max_length": s.context,
        "clean_up_tokenization_spaces": False,
        "chat_template": LLAMA3_TEMPLATE if llama else CHATML_TEMPLATE,
    })
    write_json(out, "generation_config.json", {
        "bos_token_id": ids.get(bos),
        "eos_token_id": [ids[eos], ids[end]],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
    })
    return ids.get(bos), ids[eos]


def write_checkpoint(out, s):
    os.makedirs(out, exist_ok=True)
    style = "llama3" if s.arch == "llama" else "chatml"
    bos, eos = None, None
    if s.vocab >= 256 + len(SPECIALS[style]):  # fewer ids: a model of numbers, for tests
        bos, eos = write_text_files(out, s, style)
    write_json(out, "config.json", config(s, bos, eos))
    write_weights(out, s)


def compare(out, s):
    """The names of files in which `out` differs from what write_checkpoint would put there."""
    with tempfile.TemporaryDirectory() as fresh:
        write_checkpoint(fresh, s)
        names = os.listdir(fresh)
        _, differ, missing = filecmp.cmpfiles(fresh, out, names, shallow=False)
        return sorted(differ + missing)


def check(parser, s):
    for name in ("hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate", "vocab",
                 "context", "shards"):
        if getattr(s, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(s, name)} is not positive")
    if s.heads % s.kv_heads:
        parser.error(f"--kv-heads {s.kv_heads} does not divide --heads {s.heads}")
    if s.hidden % s.heads and s.head_dim * s.heads == s.hidden:
        parser.error(f"--heads {s.heads} does not divide --hidden {s.hidden}: give --head-dim")
    if s.head_dim % 2 or s.head_dim < 2:
        parser.error(f"--head-dim {s.head_dim} is not even")
    if s.arch == "qwen2" and s.head_dim * s.heads != s.hidden:
        parser.error("--arch qwen2 has --head-dim = --hidden / --heads")
    if not 1 <= s.shards <= s.layers:
        parser.error(f"--shards {s.shards} is not within 1 to --layers {s.layers}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out", metavar="OUT", help="directory to write")
    parser.add_argument("--preset", choices=PRESETS, help="a shape; other flags change it")
    parser.add_argument("--arch", choices=FAMILIES)
    for name in ("hidden", "layers", "heads", "kv-heads", "head-dim", "intermediate", "vocab",
                 "context", "shards", "rope-original-context", "seed"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--dtype", choices=("bf16", "f32"))
    parser.add_argument("--rope-scaling", choices=("llama3", "linear", "none"))
    for name in ("rope-factor", "rope-theta", "eps"):
        parser.add_argument("--" + name, type=float)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if OUT differs")
    for name in ("tied", "attention-bias"):
        parser.add_argument("--" + name, action="store_true", default=None)
    args = vars(parser.parse_args())
    out, preset, only_check = args.pop("out"), args.pop("preset"), args.pop("check")
    fields = dict(PRESETS.get(preset, {}))
    given = {name: value for name, value in args.items() if value is not None}
    if given.keys() & {"hidden", "heads"}:
        fields.pop("head_dim", None)
    shape = Shape(**{**fields, **given})
    check(parser, shape)
    if not only_check:
        write_checkpoint(out, shape)
    elif differ := compare(out, shape):
        sys.exit(f"{out}: not what these arguments make: {', '.join(differ)}")


if __name__ == "__main__":
    main()
