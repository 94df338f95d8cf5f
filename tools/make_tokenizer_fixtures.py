#!/usr/bin/env python3
"""Make tests/data/tokenizers: three small tokenizers and what the `tokenizers` package makes of text.

    pip install tokenizers==0.23.3
    python3 tools/make_tokenizer_fixtures.py tests/data/tokenizers

Writes, the same bytes on every run:
  gpt2.json qwen2.json llama3.json  trained here, on text made here, with those families' patterns
  fragments.txt                     what the strings below are put together from, one a line
  NAME.expected                     for each of 10,000 strings 4 little-endian u32: number of ids,
                                    hash of the ids with and without what the post-processor adds,
                                    hash of the ids where special tokens are ordinary text, hash of
                                    both decoded texts (special tokens skipped, and kept)
  NAME.decoded                      for each of 2,000 random id sequences a u32: hash of both texts
  samples.json                      the ids of the first 100 strings in full, to read a failure by

The strings themselves are not stored: the test makes them from fragments.txt by the same rule
(make_string here and there), with the numbers of src/base/prng.h.
"""
import json
import os
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

STRINGS, SEQUENCES, SAMPLES, VOCABULARY = 10000, 2000, 100, 2400
MASK = (1 << 64) - 1

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

# ------------------------------------------------------------------------- src/base/prng.h, again


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Prng:
    def __init__(self, seed):
        self.seed, self.counter = mix(seed), 0

    def below(self, bound):
        value = mix(self.seed ^ mix(self.counter ^ 0xD1B54A32D192ED03))
        self.counter += 1
        return ((value >> 32) * bound) >> 32


def fnv(data):
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def pack(ids):
    return struct.pack("<%dI" % len(ids), *ids)


# ----------------------------------------------------------------------------------- what is said

TEXT = """The cache holds keys and values of every token that the model has read; a prefix that two
requests share is computed once. When memory runs out, blocks move to a slower tier, and what nobody
asked for in a long time is dropped. It's simple, isn't it? We'll see: they've said so, I'm sure you'd
agree, and he's not the only one who doesn't. In 2024 about 1234567 requests were counted, 3.14159 of
them per second; 99% ended within 250 ms, the rest in less than 1,000.
Der Speicher hält Schlüssel und Werte jedes Wortes; größere Blöcke müssen später geprüft werden.
L'été dernier, la mémoire était pleine : où sont passées les données de l'élève naïf ?
El año pasado, ¿cuántos niños llegaron? ¡Muchísimos! Ação, coração, São Paulo, não.
Кэш хранит ключи и значения всех слов; память не бесконечна, поэтому старое уходит на диск.
Η μνήμη είναι γεμάτη και οι λέξεις χάνονται. Ευχαριστώ πολύ.
הזיכרון מלא והמילים נעלמות. שלום עולם.
الذاكرة ممتلئة والكلمات تختفي. مرحبا بالعالم ١٢٣٤٥
स्मृति भरी हुई है और शब्द खो जाते हैं। नमस्ते दुनिया १२३
หน่วยความจำเต็มแล้วและคำก็หายไป สวัสดีชาวโลก
缓存保存每个词的键和值，两次请求共享的前缀只计算一次。你好，世界！
メモリがいっぱいになると、古いブロックは遅い層へ移されます。こんにちは世界。
캐시는 모든 단어의 키와 값을 저장합니다. 안녕하세요 세계.
static int count_blocks(const struct pool *pool)
{
    int total = 0;

    for (size_t i = 0; i < pool->size; i++)
        if (pool->blocks[i].refs > 0)
            total += 1;
    return total;
}
def main(argv):
\treturn {"name": argv[0], "values": [x ** 2 for x in range(10)], "ok": True} # done
SELECT id, name FROM tokens WHERE count >= 100 AND kind != 'special' ORDER BY id DESC;
<html><body class="a-b_c">&nbsp;</body></html> https://example.org/path?q=1&r=%20#top
😀 🎉 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 ❤️ ✓ → ∑ √2 ≠ ½ ² Ⅷ ① €100 £20 ¥3000 °C µm
"""

# (content, flags): every flag, words that overlap, and spellings that decode in their own way.
ADDED = [
    ("<|endoftext|>", "special"), ("<|im_start|>", "special"), ("<|im_end|>", "special"),
    ("<|begin|>", "special"), ("<|endof", ""), ("<l>", "lstrip"), ("<r>", "rstrip"),
    ("<lr>", "lstrip rstrip special"), ("word", "single_word"), ("Wort", "single_word normalized"),
    ("<n>", "normalized"), ("<ns>", "normalized special"), ("<sl>", "single_word lstrip"),
    ("<nr>", "normalized rstrip lstrip"), ("e\u0301tat", "normalized"), ("\u212b", ""),
    ("世界", "special"), ("é", ""), ("Ġx", ""),
]
# Of blanks: in one tokenizer only, for in the others the pattern must see the long runs.
ADDED_BLANKS = [("   ", ""), ("\t\t", "normalized")]

ODD = [
    b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
    b"\xe0\x80\x80", b"\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x28\xa1", b"\x00", b"\x7f", b"\x1c",
]

PIECES = [
    " ", " ", " ", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000",
    "\u2003", "\u2028", "\u0085", "\u180e", "\u200b", "\u200d", "\ufeff", "\x0b", "\x0c", "'s", "'S", "'t",
    "'RE", "'ve", "'LL", "'d", "'m", "'\u017f", "’s", "'", "a", "A", "b", "z", "x", "0", "1", "12",
    "123", "1234567890", "٣", "½", "²", "Ⅷ", "!", "!!!", "...", ".", ",", "_", "-", "--", "//", "{", "}",
    "()", "[];", "\"", "\\", "#", "$", "%", "&", "*", "=", "==", "<", ">", "|", "~", "`", "^", "@", "+",
    "e\u0301", "a\u0308\u0323", "a\u0323\u0308", "\u0301", "\u0345", "\u0f73", "\u1100\u1161\u11a8", "\uac00\u11a8",
    "\u212b", "\u2126", "\u2260", "=\u0338", "\u0958", "\u09c7\u09be", "ｆｕｌｌ", "ﬁ", "ß", "İ", "ſ", "Ǆ",
    "é", "état", "e\u0301tat", "Ünï", "q\u0307\u0323", "ق\u0651\u064e", "\u05d0\u05b7", "क्षि", "ก็", "한국어",
    "\u1112\u1161\u11ab", "日本", "世界", "世", "界", "𠀀", "𝒳", "😀", "👩\u200d👩\u200d👧", "🇩🇪", "❤\ufe0f", "Ġ", "Ċ",
]

RANGES = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x52f), (0x591, 0x5f4),
          (0x621, 0x6ff), (0x900, 0x97f), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x206f),
          (0x2100, 0x22ff), (0x2460, 0x27bf), (0x3000, 0x30ff), (0x4e00, 0x9fef), (0xac00, 0xd7a3),
          (0xf900, 0xfa6d), (0xfb00, 0xfb4f), (0xff01, 0xffee), (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f),
          (0x2f800, 0x2fa1d)]


def fragments():
    words = sorted(set(TEXT.split()))
    added = [content for content, _ in ADDED]
    around = [" " + a + " " for a in added] + ["word" + added[8] + "s", "a" + added[5], added[6] + "\n  "]
    contents = [w.encode() for w in words] + [(" " + w).encode() for w in words[::2]]
    contents += [p.encode() for p in PIECES * 4 + added * 3 + around] + ODD * 2
    return contents


def escaped(data):
    """One line of ASCII."""
    return "".join(chr(b) if 0x20 < b < 0x7f and b != 0x5c else "\\x%02x" % b for b in data)


def encoded(code):
    """UTF-8, also of surrogates, which makes it ill-formed."""
    return chr(code).encode("utf-8", "surrogatepass")


def make_string(index, parts):
    """The rule that the C test repeats."""
    prng, out = Prng(index), b""
    for _ in range(1 + prng.below(20)):
        kind = prng.below(32)
        if kind == 0:
            out += bytes([prng.below(256)])
        elif kind == 1:
            low, high = RANGES[prng.below(len(RANGES))]
            out += encoded(low + prng.below(high - low + 1))
        elif kind == 2:
            part = parts[prng.below(len(parts))]
            out += part * (2 + prng.below(200 if index % 50 == 0 else 12))
        else:
            out += parts[prng.below(len(parts))]
    return out


# ------------------------------------------------------------------------------------- tokenizers


def corpus():
    """TEXT, its words in other orders, invented ones, and numbers: merges of all lengths."""
    words, prng = TEXT.split(), Prng(42)
    syllables = ["ka", "ren", "tio", "ble", "un", "mor", "ste", "ли", "на", "ção", "äu", "ing", "の", "이"]
    words += ["".join(syllables[prng.below(len(syllables))] for _ in range(1 + prng.below(4)))
              for _ in range(400)]
    yield from TEXT.splitlines(keepends=True)
    for _ in range(600):
        line = [words[prng.below(len(words))] for _ in range(12)] + [str(prng.below(100000))]
        yield " ".join(line) + ["\n", "\n\n", ".\n    ", "\t"][prng.below(4)]


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(pre_tokenizer, normalizer, post_processor, added, unreachable, merges_as_text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))

    plan = json.loads(tokenizer.to_str())
    for word in unreachable:  # words that no merge makes: only ignore_merges finds them
        plan["model"]["vocab"].setdefault(word, len(plan["model"]["vocab"]))
    plan["model"]["ignore_merges"] = bool(unreachable)
    tokenizer = Tokenizer.from_str(json.dumps(plan))
    for content, flags in added:
        flags = {flag: True for flag in flags.split()}
        flags.setdefault("normalized", False)
        tokenizer.add_tokens([AddedToken(content, **flags)])
    tokenizer.post_processor = post_processor(tokenizer)

    plan = json.loads(tokenizer.to_str())
    merges = [merge if isinstance(merge, list) else merge.split(" ")
              for merge in plan["model"]["merges"]]
    plan["model"]["merges"] = [" ".join(merge) for merge in merges] if merges_as_text else merges
    return json.dumps(plan, ensure_ascii=False, separators=(",", ":")) + "\n"


def begin(tokenizer):
    identity = tokenizer.token_to_id("<|begin|>")
    return processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B",
                                      special_tokens=[("<|begin|>", identity)])])


def make_tokenizers():
    unreachable = ["Ġunreachable", "zzzz", "Ġ世ç", "ĠĠĠĠĠĠĠ", "!!!", "()"]
    return {
        "gpt2": train(pre_tokenizers.ByteLevel(add_prefix_space=True), None,
                      lambda _: processors.ByteLevel(trim_offsets=True), ADDED + ADDED_BLANKS, [], True),
        "qwen2": train(split(QWEN2), normalizers.NFC(),
                       lambda _: processors.ByteLevel(trim_offsets=False), ADDED, [], True),
        "llama3": train(split(LLAMA3), None, begin, ADDED, unreachable, False),
    }


# --------------------------------------------------------------------------------------- expected


def both_texts(tokenizer, ids):
    skipped = tokenizer.decode(ids, skip_special_tokens=True)
    kept = tokenizer.decode(ids, skip_special_tokens=False)
    return fnv(skipped.encode() + b"\0" + kept.encode())


def expect(tokenizer, text):
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(text).ids
    bare = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = True
    ordinary = tokenizer.encode(text, add_special_tokens=False).ids
    return ids, struct.pack("<4I", len(ids), fnv(pack(ids) + pack([0xFFFFFFFF]) + pack(bare)),
                            fnv(pack(ordinary)), both_texts(tokenizer, ids))


def expect_decoded(tokenizer, index):
    prng = Prng(1000000 + index)
    ids = [prng.below(tokenizer.get_vocab_size()) for _ in range(1 + prng.below(12))]
    return struct.pack("<I", both_texts(tokenizer, ids))


def main(folder):
    parts, samples = fragments(), {}
    texts = [make_string(i, parts).decode("utf-8", errors="replace") for i in range(STRINGS)]
    with open(os.path.join(folder, "fragments.txt"), "w", encoding="ascii") as file:
        file.write("".join(escaped(part) + "\n" for part in parts))
    for name, plan in make_tokenizers().items():
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
            file.write(plan)
        tokenizer = Tokenizer.from_str(plan)
        with open(os.path.join(folder, name + ".expected"), "wb") as file:
            for index, text in enumerate(texts):
                ids, record = expect(tokenizer, text)
                file.write(record)
                if index < SAMPLES:
                    samples.setdefault(name, []).append(ids)
        with open(os.path.join(folder, name + ".decoded"), "wb") as file:
            file.write(b"".join(expect_decoded(tokenizer, i) for i in range(SEQUENCES)))
        print(name, tokenizer.get_vocab_size(), "tokens")
    with open(os.path.join(folder, "samples.json"), "w", encoding="ascii") as file:
        json.dump(samples, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
