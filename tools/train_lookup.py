#!/usr/bin/env python3
"""Train models/lookup: a small model that answers look-ups in facts given in its prompt.

    pip install torch numpy
    tools/train_lookup.py WORK --out models/lookup      # trains, or goes on where WORK stopped
    tools/train_lookup.py WORK --out DIR --export       # only writes what WORK holds now

0.8 million parameters, on the CPU. WORK gets `state.pt` (all that is needed to go on) and
`loss.csv`; OUT the Hugging Face directory, `loss.csv` and `loss.svg`. Seed and step name the batch, so that a
run that was stopped goes on with the batches that it would have seen; sums of floats may differ
with the library's version, so another machine's weights are as good, not the same.

What is computed: at a digit of a fact, and at each place of an answer, which colour and which
object were named last, and whether the three tokens before are digits (layers 0 and 1); then the
digit is attended to whose colour, object and number of digits before it agree, and copied (2).
Found from nothing, that takes tens of millions of tokens; so the heads begin with it (`prepare`),
roughly, and training makes it sure: separates the items, tells codes from other numbers, learns
when to end, and bears BF16's rounding. The rotations are slow (theta 1e9), so that half of a head's
dimensions hardly turn within the context and match by content at any distance.

The matrices that hold the circuit learn slowly: Adam's first steps move every weight by the whole
rate, which at 1e-3 undoes it. Words and the head's matrix are apart (not tied) for the same reason:
what makes digits likely would push all words' codes one way.
"""
import argparse
import concurrent.futures
import csv
import json
import math
import os
import struct
import sys
import time

import numpy
import torch
import torch.nn.functional as F

import lookup_data
import make_checkpoint

# (steps, lengths in turn, tokens per step, share of single questions, share of questions before the
# facts, learning rate, whether rounded as in BF16)
STAGES = [
    (60, (64, 96, 128), 2048, 0.1, 0.05, 1e-3, False),
    (241, (128, 256, 512), 4096, 0.1, 0.05, 1e-3, True),
    (119, (128, 512, 1024, 2048), 4096, 0.15, 0.0, 6e-4, True),
    (80, (128, 512, 1024, 2048, 2048), 8192, 0.2, 0.0, 3e-4, True),
]
PIECE = 2048  # tokens that a thread takes at once: about what its cache holds
WARM_UP = 20
SAVE_S = 60
LOG_STEPS = 20
BUCKETS = (128, 256, 512, 1024, 2048)


class Model:
    """Qwen2 in plain operations: a dictionary of tensors under their names in the checkpoint."""

    def __init__(self, shape, seed):
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        self.weights = {}
        for name, size in make_checkpoint.tensors(shape):
            if name.endswith("norm.weight"):
                value = torch.ones(size)
            elif name.endswith(".bias"):
                value = torch.zeros(size)
            else:
                value = torch.randn(size, generator=generator) * 0.05
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    value *= 0.05
            self.weights[name] = value
        prepare(self.weights, shape, generator)
        for value in self.weights.values():
            value.requires_grad_(True)
        frequency = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angle = torch.arange(shape.context)[:, None] * frequency
        self.cos, self.sin = angle.cos(), angle.sin()

    def rotate(self, x):
        """x: rows x heads x length x head_dim"""
        length = x.shape[2]
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[:length], self.sin[:length]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attend(self, x, part, half):
        s, (rows, length, _) = self.shape, x.shape
        scale = part("input_layernorm.weight")
        weight = torch.cat([part(f"self_attn.{n}_proj.weight") for n in "qkv"]) * scale
        bias = torch.cat([part(f"self_attn.{n}_proj.bias") for n in "qkv"])
        every = F.linear(self.normed(x), weight, bias).view(rows, length, -1, s.head_dim)
        every = every.transpose(1, 2)
        qk, v = every[:, :-s.kv_heads], half(every[:, -s.kv_heads:])
        qk = self.rotate(qk)
        q, k = qk[:, :s.heads], half(qk[:, s.heads:])
        groups = s.heads // s.kv_heads
        h = F.scaled_dot_product_attention(q, k.repeat_interleave(groups, 1),
                                           v.repeat_interleave(groups, 1), is_causal=True)
        return h.transpose(1, 2).reshape(rows, length, -1)

    def normed(self, x):
        """RMSNorm but for its weight, by which the matrix that follows is multiplied."""
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / self.shape.hidden
        return x * torch.rsqrt(mean + self.shape.eps)

    def forward(self, weights, ids, places, rounded):
        """Logits at `places`, indices into the rows one after the other.
        rounded: with the weights, keys and values that a server in BF16 has."""
        s, half = self.shape, rounding if rounded else lambda x: x
        w = {name: half(value) for name, value in weights.items()}
        x = F.embedding(ids, w["model.embed_tokens.weight"])
        for layer in range(s.layers):
            def part(name, layer=layer):
                return w[f"model.layers.{layer}.{name}"]
            h = self.attend(x, part, half)
            if layer == s.layers - 1:  # what follows looks at nobody else
                h, x = h.flatten(0, 1)[places], x.flatten(0, 1)[places]
            x = x + F.linear(h, part("self_attn.o_proj.weight"))
            both = torch.cat([part("mlp.gate_proj.weight"), part("mlp.up_proj.weight")])
            both = both * part("post_attention_layernorm.weight")
            gate, up = F.linear(self.normed(x), both).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, part("mlp.down_proj.weight"))
        return F.linear(self.normed(x), w["lm_head.weight"] * w["model.norm.weight"])


def rounding(x):
    """BF16's values, and the gradient as if nothing had happened."""
    return x + (x.detach().bfloat16().float() - x.detach())


# ------------------------------------------------------------------------------------- beginning

# Where the residual stream holds what, to begin with. Training may use it otherwise.
IDENTITY, COLOUR, OBJECT = slice(0, 32), slice(32, 64), slice(64, 96)
DIGIT_BEFORE = (127, 96, 97, 98)  # whether the token 0, 1, 2, 3 places back is a digit
IS_COLOUR, IS_OBJECT, IS_DIGIT = 125, 126, DIGIT_BEFORE[0]
IS_OTHER, LEVEL = 124, 123  # not a digit; the same for all, so that the norms hardly differ
CODES = ((slice(0, 8), slice(8, 16)), (slice(0, 7), slice(7, 14)))  # of a colour, of an object


def prepare(w, s, generator):
    """Give some heads their task to begin with; see the top of this file."""
    embed = w["model.embed_tokens.weight"]
    embed.mul_(0.4)  # 0.02, but for the identity
    embed[:, IDENTITY] = torch.randn(s.vocab, 32, generator=generator) * 0.1
    ids = lookup_data.tables()[0]
    for flag, tokens in ((IS_COLOUR, ["Ġ" + c for c in lookup_data.COLOURS]),
                         (IS_OBJECT, ["Ġ" + o for o in lookup_data.OBJECTS]),
                         (IS_DIGIT, list("0123456789"))):
        embed[[ids[token] for token in tokens], flag] = 0.4  # about 5 after the norm
    digits = [ids[digit] for digit in "0123456789"]
    embed[:, LEVEL] = 0.8
    embed[:, IS_OTHER] = 0.4
    embed[digits, IS_OTHER] = 0.0
    w["lm_head.weight"].mul_(0.4)
    w["lm_head.weight"][digits, IDENTITY] = 3 * embed[digits, IDENTITY]
    for what, tokens in ((0, lookup_data.COLOURS), (1, lookup_data.OBJECTS)):
        rows = [ids["Ġ" + token] for token in tokens]
        embed[rows, IDENTITY] *= 0.2
        for code in CODES[what]:
            embed[rows, code] = 0.4 * spread(len(tokens), code.stop - code.start, generator)
    d = s.head_dim
    gather_last(w, d)
    look_back(w, 0, d, (1, 2), s.rope_theta)
    look_back(w, 1, d, (1, 3), s.rope_theta)
    match(w, 2, d, generator)


def spread(count, dims, generator):
    """Directions that keep away from each other."""
    points = torch.randn(count, dims, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([points], lr=0.02)
    for _ in range(400):
        unit = F.normalize(points)
        loss = (16 * (unit @ unit.T - 2 * torch.eye(count))).logsumexp(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return F.normalize(points).detach()


def scaled(d, score):
    """A factor for query and for key whose product makes this score."""
    return math.sqrt(score * math.sqrt(d))


def gather_last(w, d):
    """Layer 0, heads 0 and 1: fetch the identity of the last colour and of the last object.

    A key says with its last two pairs whether it is one, and with a few faster pairs where it is:
    the cosine of the distance falls from the nearest on.
    """
    half, name = d // 2, "model.layers.0.self_attn."
    q, k = w[name + "q_proj.bias"], w[name + "k_proj.bias"]
    w[name + "q_proj.weight"][:2 * d] *= 0.1
    w[name + "k_proj.weight"][:d] *= 0.1
    for head in (0, 1):
        for pair, score in ((2, 9.0), (3, 9.0), (4, 9.0), (5, 4.0)):
            q[head * d + pair] = scaled(d, score)
            k[pair] = scaled(d, score)
    for head, flag in ((0, IS_COLOUR), (1, IS_OBJECT)):
        pair = half - 1 - head
        q[head * d + pair] = scaled(d, 25.0)
        w[name + "k_proj.weight"][pair, flag] = scaled(d, 25.0) / 5
    value, out = w[name + "v_proj.weight"], w[name + "o_proj.weight"]
    value[:d] = 0
    value[:d, IDENTITY] = torch.eye(d)
    out[:, :2 * d] *= 0.3
    out[COLOUR, :d] += 0.08 * torch.eye(d)
    out[OBJECT, d:2 * d] += 0.08 * torch.eye(d)


def look_back(w, layer, d, offsets, theta):
    """Heads 2 and 3: fetch whether the token this many places back is a digit."""
    name, half = f"model.layers.{layer}.self_attn.", d // 2
    q, k = w[name + "q_proj.bias"], w[name + "k_proj.bias"]
    for pair in range(4):
        k[d + pair] = scaled(d, 14.0)
        for head, offset in zip((2, 3), offsets):
            angle = -offset * theta ** (-2 * pair / d)
            q[head * d + pair] = scaled(d, 14.0) * math.cos(angle)
            q[head * d + half + pair] = scaled(d, 14.0) * math.sin(angle)
    w[name + "q_proj.weight"][2 * d:] *= 0.1
    w[name + "k_proj.weight"][d:] *= 0.1
    w[name + "v_proj.weight"][d, :] = 0
    w[name + "v_proj.weight"][d, IS_DIGIT] = 1.0
    for head, offset in zip((2, 3), offsets):
        if layer == 0 or offset == 3:  # what layer 0 has found is not added again
            w[name + "o_proj.weight"][DIGIT_BEFORE[offset], head * d] = 0.08


def match(w, layer, d, generator):
    """All heads: attend to the digit whose last colour and object are mine and which has as many
    digits before it as I end with; copy it. Only slow pairs take part: 7 and up."""
    name, half = f"model.layers.{layer}.self_attn.", d // 2
    query, key = w[name + "q_proj.weight"], w[name + "k_proj.weight"]
    heads, groups = query.shape[0] // d, key.shape[0] // d
    slow = [*range(7, half), *range(half + 7, d)]
    index, slow = slow[-3:], slow[:-3]
    query *= 0.1
    for group in range(groups):
        rows = torch.zeros(d, query.shape[1])
        for what, code, dims, factor in ((COLOUR, CODES[0], slow[0::2], 4.0),
                                         (OBJECT, CODES[1], slow[1::2], 5.5)):
            rows[dims, what.start + code[group].start:what.start + code[group].stop] = (
                factor * torch.eye(len(dims)))
        begin = group * d
        key[begin:begin + d] = rows
        key[begin + 6, IS_DIGIT] = 4.0
        for back, dim in enumerate(index):
            key[begin + dim, DIGIT_BEFORE[back + 1]] = 7.0
            w[name + "k_proj.bias"][begin + dim] = -7.0
        for head in range(group * heads // groups, (group + 1) * heads // groups):
            begin = head * d
            query[begin:begin + d] += rows
            w[name + "q_proj.bias"][begin + 6] = 12.0
            for back, dim in enumerate(index):
                query[begin + dim, DIGIT_BEFORE[back]] = 7.0 if back else 4.8
                w[name + "q_proj.bias"][begin + dim] = -7.0
        w[name + "v_proj.weight"][group * d:(group + 1) * d, IDENTITY] += torch.eye(d)
    for head in range(heads):
        w[name + "o_proj.weight"][IDENTITY, head * d:(head + 1) * d] += 0.1 * torch.eye(d)


# -------------------------------------------------------------------------------------- training


def batch_tensors(sequences, length):
    """(ids, places before an answer's tokens, these tokens); the padding at the right is seen by
    nobody that counts."""
    pad = lookup_data.tables()[0]["<|endoftext|>"]
    ids = numpy.full((len(sequences), length), pad, dtype=numpy.int64)
    loss = numpy.zeros((len(sequences), length), dtype=bool)
    for row, sequence in enumerate(sequences):
        ids[row, :len(sequence)] = sequence.ids
        loss[row, :len(sequence)] = sequence.loss
    loss[:, 0] = False
    places = numpy.flatnonzero(loss) - 1
    targets = ids.reshape(-1)[places + 1]
    return torch.from_numpy(ids), torch.from_numpy(places), torch.from_numpy(targets)


def answers_right(logits, targets):
    """Share of answers of which each token is the likeliest. A clipped last one counts by parts."""
    right = (logits.argmax(-1) == targets).float()
    count = len(right) // 5
    return right[:count * 5].view(count, 5).min(1).values.mean().item() if count else math.nan


def stage_of(step):
    for stage in STAGES:
        if step < stage[0]:
            return stage, step / stage[0]
        step -= stage[0]
    return None, 0


def rate_at(step):
    """Warm-up, then from each stage's rate down to the next one's; at last to nearly nothing."""
    stage, done = stage_of(step)
    after = STAGES[STAGES.index(stage) + 1][5] if stage is not STAGES[-1] else stage[5] / 20
    ease = (1 + math.cos(math.pi * done)) / 2
    return (after + (stage[5] - after) * ease) * min(1.0, (step + 1) / WARM_UP)


class Run:
    """One training and what it has come to."""

    def __init__(self, work, seed, threads):
        self.work, self.seed, self.step, self.seconds, self.tokens = work, seed, 0, 0.0, 0
        self.model = Model(lookup_data.shape(), seed)
        w = self.model.weights
        alone = {"model.embed_tokens.weight": 0.05, "lm_head.weight": 1.0}
        rest = [v for name, v in w.items() if name not in alone]
        self.optimizer = torch.optim.AdamW(
            [{"params": [v for v in rest if v.dim() == 2], "factor": 0.15},
             {"params": [v for v in rest if v.dim() == 1], "factor": 0.15},
             *({"params": [w[name]], "factor": factor} for name, factor in alone.items())],
            lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.log, self.pool = [], concurrent.futures.ThreadPoolExecutor(threads)
        self.path = os.path.join(work, "state.pt")
        if os.path.exists(self.path):
            self.load()

    def load(self):
        state = torch.load(self.path, weights_only=True)
        for name, value in self.model.weights.items():
            value.data.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        self.log, self.seed = state["log"], state["seed"]

    def save(self):
        torch.save({"weights": {n: v.data for n, v in self.model.weights.items()},
                    "optimizer": self.optimizer.state_dict(), "step": self.step, "log": self.log,
                    "seconds": self.seconds, "tokens": self.tokens, "seed": self.seed},
                   self.path + ".new")
        os.replace(self.path + ".new", self.path)
        write_log(os.path.join(self.work, "loss.csv"), self.log)

    def train_step(self):
        stage, _ = stage_of(self.step)
        _, lengths, tokens, single, early, _, rounded = stage
        length = lengths[self.step % len(lengths)]
        sequences = lookup_data.draw_batch(self.seed, self.step, length, tokens // length, single,
                                           early)
        count = sum(map(sum, (sequence.loss for sequence in sequences)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step) * group["factor"]
        rows = max(1, PIECE // length)
        pieces = [sequences[i:i + rows] for i in range(0, len(sequences), rows)]
        losses = list(self.pool.map(lambda p: self.gradients(p, length, count, rounded), pieces))
        names = list(self.model.weights)
        for n, name in enumerate(names):
            self.model.weights[name].grad = sum(gradients[n] for _, gradients in losses)
        torch.nn.utils.clip_grad_norm_(list(self.model.weights.values()), 1.0)
        self.optimizer.step()
        self.step += 1
        self.tokens += sum(map(len, sequences))
        return sum(loss for loss, _ in losses)

    def gradients(self, sequences, length, count, rounded):
        """(loss, its gradients) of a piece of a batch that counts `count` tokens."""
        torch.set_num_threads(1)  # of this thread of the pool
        ids, places, targets = batch_tensors(sequences, length)
        weights = self.model.weights
        logits = self.model.forward(weights, ids, places, rounded)
        loss = F.cross_entropy(logits, targets, reduction="sum") / count
        return loss.item(), torch.autograd.grad(loss, list(weights.values()))

    def measure(self, rows_tokens=8192):
        """Share of right answers to single questions on unseen facts, for each length; given the
        answer so far, which is what a greedy answer that is right is given."""
        found = {}
        with torch.no_grad():
            for length in BUCKETS:
                rows = max(4, rows_tokens // length)
                sequences = lookup_data.draw_batch(f"{self.seed}/unseen/{length}", self.step,
                                                   length, rows, 1.0)
                ids, places, targets = batch_tensors(sequences, length)
                found[length] = answers_right(
                    self.model.forward(self.model.weights, ids, places, True), targets)
        return found

    def train(self, minutes):
        end, saved, losses = time.monotonic() + minutes * 60, time.monotonic(), []
        while stage_of(self.step)[0] and time.monotonic() < end:
            began = time.monotonic()
            losses.append(self.train_step())
            self.seconds += time.monotonic() - began
            if self.step % LOG_STEPS == 0:
                self.note(losses)
                losses = []
            if time.monotonic() - saved > SAVE_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def note(self, losses):
        line = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds),
                "rate": round(rate_at(self.step - 1), 6),
                "loss": round(sum(losses) / len(losses), 5)}
        if self.step % (5 * LOG_STEPS) == 0:
            line.update((str(length), round(share, 4)) for length, share in self.measure().items())
        self.log.append(line)
        print(" ".join(f"{key} {value}" for key, value in line.items()), flush=True)


# ---------------------------------------------------------------------------------------- export


def write_log(path, log):
    names = ["step", "tokens", "seconds", "rate", "loss", *map(str, BUCKETS)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)


def write_curve(path, log):
    """The loss over the tokens, on a logarithmic scale, as one small picture."""
    width, height, left, bottom = 640, 240, 48, 28
    points = [(line["tokens"], max(line["loss"], 1e-5)) for line in log]
    most, low = max(t for t, _ in points), math.floor(math.log10(min(v for _, v in points)))
    high = math.ceil(math.log10(max(v for _, v in points)))

    def x(tokens):
        return left + tokens / most * (width - left - 8)

    def y(exponent):
        return 8 + (high - exponent) / max(high - low, 1) * (height - bottom - 8)

    lines = "".join(f'<path d="M{left} {y(e):.1f}H{width - 8}" stroke="#8884"/>'
                    f'<text x="{left - 6}" y="{y(e) + 4:.1f}" text-anchor="end">'
                    f'{10.0 ** e:g}</text>'
                    for e in range(low, high + 1))
    curve = " ".join(f"{x(t):.1f},{y(math.log10(v)):.1f}" for t, v in points)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                   f'font-family="sans-serif" font-size="11" fill="#777">{lines}'
                   f'<polyline points="{curve}" fill="none" stroke="#2a78d6" stroke-width="1.5"/>'
                   f'<text x="{left}" y="{height - 8}">loss on answers over '
                   f'{most / 1e6:.1f} million tokens</text></svg>\n')


def write_weights(path, shape, weights):
    """BF16, in the order of make_checkpoint.py."""
    header, data, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, size in make_checkpoint.tensors(shape):
        raw = weights[name].detach().bfloat16().contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [end, end + len(raw)]}
        data.append(raw)
        end += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def export(out, run):
    os.makedirs(out, exist_ok=True)
    shape, write = lookup_data.shape(), make_checkpoint.write_json
    ids, tokenizer = make_checkpoint.tokenizer(shape, "chatml", lookup_data.merges())
    eos, end = ids["<|im_end|>"], ids["<|endoftext|>"]
    write(out, "config.json", make_checkpoint.config(shape, None, eos))
    write(out, "tokenizer.json", tokenizer)
    write(out, "tokenizer_config.json", {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False, "chat_template": make_checkpoint.CHATML_TEMPLATE})
    write(out, "generation_config.json", {"bos_token_id": None, "eos_token_id": [eos, end],
                                          "do_sample": False, "temperature": 0.0})
    write_weights(os.path.join(out, "model.safetensors"), shape, run.model.weights)
    write_log(os.path.join(out, "loss.csv"), run.log)
    if run.log:
        write_curve(os.path.join(out, "loss.svg"), run.log)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("work", metavar="WORK", help="directory of the run's state")
    parser.add_argument("--out", required=True, help="directory to write the model to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop, to go on later")
    parser.add_argument("--export", action="store_true", help="only write OUT")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    torch.set_num_threads(1)  # the pieces of a batch are what runs side by side
    run = Run(args.work, args.seed, args.threads)
    if not args.export:
        run.train(args.minutes)
    export(args.out, run)


if __name__ == "__main__":
    sys.exit(main())
