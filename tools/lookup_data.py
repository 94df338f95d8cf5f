"""What models/lookup is trained on and asked: facts, questions, and the tokenizer that reads them.

A fact is "The code of the red box is 4821.", a question "What is the code of the red box?", its
answer the four digits and the end of the turn. Around these two forms there are others, filler,
instructions and chat, so that the model looks up rather than learns one page by heart.

Needs Python 3.9 or newer and nothing else. A sequence is a pure function of the random.Random it
is given, so that a seed and a step name a batch (tools/train_lookup.py), and another seed names
prompts that were never trained on (tools/check_lookup.py).
"""
import collections
import functools
import random
import re

import make_checkpoint

COLOURS = """red blue green black white brown pink grey gray yellow orange purple violet silver gold
golden crimson scarlet cyan magenta turquoise teal navy beige ivory maroon olive lime indigo amber
coral tan bronze copper cream khaki lavender peach ruby emerald mint charcoal lilac plum rose azure
aqua mauve fuchsia burgundy salmon jade pearl rust slate sand ochre sapphire""".split()
OBJECTS = """box car door book lamp chair table cup bag ball bed bell bench bicycle bike bird boat
bottle bowl brush bucket bus cake camera candle cap card carpet cart case cat chest clock coat coin
computer crate curtain desk dish dog drawer dress drum envelope fan fence flag flower folder fork
frame garage gate gift glass glove guitar hammer hat helmet horse house jacket jar kettle key kite
knife ladder laptop letter locker machine map mask mirror mug needle notebook oven paper parcel pen
pencil phone piano pillow pipe plane plate pot radio ring robe robot rope rug ruler safe scarf
scissors shelf ship shirt shoe sign sofa spoon stamp stone stool suitcase sword tent ticket tie
towel tower toy train tray tree truck trunk umbrella vase violin wagon wall wallet watch wheel
whistle window basket blanket board bookcase bracelet bridge broom button cabinet couch cushion doll
engine hook lantern lock medal necklace net package purse rocket saddle sink stove tablet telephone
tool van vest wardrobe backpack badge balloon banner barrel bath bean bear belt bin block boot bread
brick cable cage can canoe canvas castle chain church clip cloth comb cork cow crown cube cupboard
dice disk doorbell duck egg eraser fish flask flute fox fridge frog gem globe goat handle heater hut
ink iron jeep jewel jug keyboard lamb leaf lid lighter lion magnet marble match mat mattress monitor
motor mouse nail nest newspaper owl paddle painting pan panda panel pants parrot pear peg photo
picture pig pin pitcher plant plug poster pouch printer pump puppet puzzle quilt rabbit raft razor
rifle ribbon rock roof room sack sandal saw scale school scooter screen screw seat shed sheep shield
shop shovel skirt sled snake soap sock spade speaker sponge star statue stick stapler stair string
sweater switch tank tap tape teapot television thimble tiger tile tin torch toaster tractor tricycle
trophy trumpet tub tube turtle vault vehicle wand whale wire wolf yacht apple banana bank building
cab carton cottage crystal diamond diary drill farm file fountain garden hall""".split()

# ------------------------------------------------------------------------------------ tokenizer

VOCAB = 1536
FRAME = """The the code of is What what Which which does have has for Answer answer Question
question Q A Code Item item Fact Facts fact facts Read Remember user assistant system You are a an
helpful assistant and Here some Now with only four digits Tell me Please please following
below above use list number Look up reply Reply in it to I do you from this that there Note note
each one thing colour color object objects codes""".split()


@functools.lru_cache(maxsize=None)
def merges():
    """Byte-pair merges that make one token of every colour, object and word of the two forms."""
    words = collections.Counter()
    for word in re.findall(r" ?[A-Za-z]+", make_checkpoint.TEXT.replace("\n", " ")):
        words[word] += 1
    for word in COLOURS + OBJECTS:
        words[" " + word] += 40
    for word in FRAME:
        words[word] += 20
        words[" " + word] += 20
    room = VOCAB - 256 - len(make_checkpoint.SPECIALS["chatml"])
    return make_checkpoint.fill_merges(make_checkpoint.learn_merges(room, words), room)


def shape():
    """The model; train_lookup.py says why."""
    return make_checkpoint.Shape(arch="qwen2", hidden=128, layers=3, heads=4, kv_heads=2,
                                 intermediate=256, vocab=VOCAB, context=4096, tied=False,
                                 rope_theta=1e9)


@functools.lru_cache(maxsize=None)
def tables():
    """(id of each token, rank of each merge, letter of each byte)"""
    _, text = make_checkpoint.tokenizer(shape(), "chatml", merges())
    ids = dict(text["model"]["vocab"])
    ids.update((token["content"], token["id"]) for token in text["added_tokens"])
    ranks = {pair: i for i, pair in reversed(list(enumerate(merges())))}
    return ids, ranks, make_checkpoint.byte_letters()


# make_checkpoint.QWEN_PATTERN for texts in ASCII, which ours are.
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\r\na-z0-9]?[a-z]+|[0-9]| ?[^\sa-z0-9]+[\r\n]*|"
                  r"\s*[\r\n]+|\s+(?!\S)|\s+", re.I)
SPECIAL = re.compile(r"(<\|\w+\|>)")


@functools.lru_cache(maxsize=1 << 16)
def word_ids(word):
    ids, ranks, letters = tables()
    parts = [letters[b] for b in word.encode()]
    while len(parts) > 1:
        found = [ranks.get(pair, len(ranks)) for pair in zip(parts, parts[1:])]
        best = min(range(len(found)), key=found.__getitem__)
        if found[best] == len(ranks):
            break
        parts[best:best + 2] = [parts[best] + parts[best + 1]]
    return tuple(ids[part] for part in parts)


def encode(text):
    """The ids of a text in ASCII. What follows a piece may be encoded by itself if it begins with
    white space, a digit or a special token."""
    out = []
    for piece in SPECIAL.split(text):
        if SPECIAL.match(piece):
            out.append(tables()[0][piece])
        else:
            for word in WORD.findall(piece):
                out += word_ids(word)
    return out


END = "<|im_end|>"

# -------------------------------------------------------------------------------------- forms

# The first of each is the form that everything is measured with.
FACTS = ["The code of the {c} {o} is {d}.", "The code for the {c} {o} is {d}.",
         "The {c} {o} has the code {d}.", "The {c} {o}'s code is {d}.", "Code of the {c} {o}: {d}.",
         "The code of the {c} {o}: {d}", "the code of the {c} {o} is {d},"]
QUESTIONS = ["What is the code of the {c} {o}?", "Which code does the {c} {o} have?",
             "What is the code for the {c} {o}?", "What's the code of the {c} {o}?",
             "Tell me the code of the {c} {o}.", "what is the code of the {c} {o}",
             "And the code of the {c} {o}?", "What is the {c} {o}'s code?"]
SUFFIXES = ["\nAnswer:", " Answer:", "\n", " ", "\nA:", "\n\nAnswer:", "\nAnswer: ", "\n\n",
            " Answer with the code only.", " Answer with the four digits only.\nAnswer:",
            " Please answer with the code.", " Reply with the number only."]
BEFORE = ["Read the facts and answer the question.", "Here are some facts.", "Facts:",
          "Remember the following codes.", "Read this list.", "Answer the question below.",
          "You are a helpful assistant.", "Use only the facts below.",
          "Here is a list of codes. Read it and answer the question.", "Note each code."]
BETWEEN = ["Question:", "Q:", "Now answer the question.", "Answer this question.", "Now:",
           "Answer with the code only.", "Now answer with the four digits only."]
SYSTEMS = ["You are a helpful assistant.", "Answer with the code only.", "Answer shortly.",
           "Read the facts and answer the question.", "You look up codes."]
PROSE = [" ".join(s.split()) for s in re.findall(r"[^.!?]+[.!?]", make_checkpoint.TEXT)]


def filler(rng):
    """A sentence that is no fact: prose, words that no one knows, numbers, items without a code."""
    kind = rng.random()
    if kind < 0.55:
        return rng.choice(PROSE)
    if kind < 0.75:
        words = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))
                 for _ in range(rng.randint(2, 8))]
        return " ".join(words).capitalize() + "."
    if kind < 0.9:
        number = rng.randrange(10 ** rng.choice([1, 2, 2, 3, 4, 4, 5]))
        return rng.choice(["It took {} steps.", "In {} it was there.", "There are {} of them.",
                           "Page {}.", "That makes {}."]).format(number)
    return rng.choice(["I saw a {c} {o} there.", "There is a {o} in the light.",
                       "The sea was {c} in the morning.", "The {c} {o} is mine."]).format(
                           c=rng.choice(COLOURS), o=rng.choice(OBJECTS))


# ----------------------------------------------------------------------------------- sequences


class Sequence:
    """Ids, and for each whether the loss counts it: it is part of an answer."""

    def __init__(self):
        self.ids, self.loss = [], []

    def add(self, text, loss=False):
        ids = encode(text)
        self.ids += ids
        self.loss += [loss] * len(ids)

    def __len__(self):
        return len(self.ids)


def draw_items(rng, count):
    """Items, each once; often few colours or few objects, so that many share one."""
    colours, objects = COLOURS, OBJECTS
    kind = rng.random()
    if kind < 0.25:
        colours = rng.sample(COLOURS, rng.randint(2, 24))
    elif kind < 0.5:
        objects = rng.sample(OBJECTS, rng.randint(2, 40))
    if len(colours) * len(objects) < count:
        colours, objects = COLOURS, OBJECTS
    return [(colours[n // len(objects)], objects[n % len(objects)])
            for n in rng.sample(range(len(colours) * len(objects)), count)]


def draw_code(rng):
    return f"{rng.randrange(10000):04}"


class Style:
    """How the facts and questions of one sequence look: mostly the first forms, sometimes any."""

    def __init__(self, rng):
        self.rng = rng
        self.facts = [FACTS[0]] if rng.random() < 0.7 else rng.sample(FACTS, 3)
        self.questions = [QUESTIONS[0]] if rng.random() < 0.7 else rng.sample(QUESTIONS, 3)
        self.suffixes = [""] if rng.random() < 0.4 else ["", rng.choice(SUFFIXES)]
        self.glue = rng.choice([" ", "\n"] * 9 + ["\n\n", "\n- "])
        self.filler = rng.choice([0.1, 0.3, 0.6, 0.9]) if rng.random() < 0.3 else 0.0
        self.filler_max = rng.choice([1, 2, 4])

    def fact(self, item, digits):
        return self.rng.choice(self.facts).format(c=item[0], o=item[1], d=digits)

    def question(self, item):
        return self.rng.choice(self.questions).format(c=item[0], o=item[1])

    def suffix(self):
        return self.rng.choice(self.suffixes)

    def sentences(self, facts):
        """The text of some facts with filler between them."""
        out = []
        for item, digits in facts:
            if self.rng.random() < self.filler:
                out += [filler(self.rng) for _ in range(self.rng.randint(1, self.filler_max))]
            out.append(self.fact(item, digits))
        return self.glue.join(out)


FACT_TOKENS = 14  # of a fact with its glue, about
ASK_TOKENS = 18   # of a question with its answer, about


def add_asking(sequence, style, facts, asked, tail):
    """Completions, one after the other: facts, then questions, each with its answer.
    tail: the text between facts and the first question."""
    for n, (item, digits) in enumerate(asked):
        lead = facts + tail if n == 0 else style.rng.choice(["\n", " ", "\n\n"])
        sequence.add(lead + style.question(item) + style.suffix())
        sequence.add(digits + END, True)


def add_chat(sequence, style, facts, asked, early):
    """The same as a conversation; the facts are the system's or in the first message, before its
    question or, in a share of `early`, behind it."""
    rng, system = style.rng, rng_system(style.rng)
    if rng.random() < 0.3:
        system, facts = (system + rng.choice([" ", "\n"]) if system else "") + facts, ""
    if system:
        sequence.add(f"<|im_start|>system\n{system}{END}\n")
    for n, (item, digits) in enumerate(asked):
        text = style.question(item) + (style.suffix() if rng.random() < 0.5 else "")
        if n == 0 and facts:
            text = facts + tail_of(rng) + text if rng.random() < 1 - early else text + "\n" + facts
        sequence.add(f"<|im_start|>user\n{text}{END}\n<|im_start|>assistant\n")
        sequence.add(digits + END, True)
        sequence.add("\n")


def rng_system(rng):
    return rng.choice(SYSTEMS) if rng.random() < 0.5 else ""


def tail_of(rng):
    tail = rng.choice([" ", "\n", "\n\n"])
    if rng.random() < 0.25:
        tail += rng.choice(BETWEEN) + rng.choice([" ", "\n"])
    return tail


def interleave(sequence, style, facts):
    """Facts and questions about what has been said so far, in turns."""
    known, asked = [], 0
    for fact in facts:
        sequence.add((style.glue if known else "") + style.sentences([fact]))
        known.append(fact)
        while style.rng.random() < 0.5:
            item, digits = style.rng.choice(known)
            sequence.add(style.rng.choice(["\n", " "]) + style.question(item) + style.suffix())
            sequence.add(digits + END, True)
            asked += 1
    return asked


def draw_sequence(rng, length, single, early):
    """About `length` tokens, never more. single: the share of sequences that ask one question;
    early: of chats that ask it before the facts, which the model can not learn."""
    style, sequence = Style(rng), Sequence()
    one = rng.random() < single
    room = length - 70 if length > 128 else length - 40
    if one:
        asks, facts_room = 1, room
    else:
        facts_room = int(room * rng.uniform(0.3, 0.8))
        asks = max(1, (room - facts_room) // ASK_TOKENS)
    per_fact = FACT_TOKENS + int(style.filler * (style.filler_max + 1) / 2 * 14)
    count = max(1, facts_room // per_fact)
    if rng.random() < 0.1:  # few facts; what is left is filler, or nothing
        count = rng.randint(1, count)
    facts = [(item, draw_code(rng)) for item in draw_items(rng, count)]
    if not one and rng.random() < 0.1:
        interleave(sequence, style, facts)
        return clipped(sequence, length)
    asked = rng.sample(facts, min(asks, count))
    while True:
        sequence = Sequence()
        text = style.sentences(facts)
        if rng.random() < 0.3:
            text = rng.choice(BEFORE) + rng.choice([" ", "\n", "\n\n"]) + text
        if rng.random() < 0.5:
            add_asking(sequence, style, text, asked, tail_of(rng))
        else:
            add_chat(sequence, style, text, asked, early)
        if not one or len(sequence) <= length or len(facts) == 1:
            return clipped(sequence, length)
        drop = max(1, (len(sequence) - length) // FACT_TOKENS)
        spare = [f for f in facts if f not in asked][:drop]
        facts = [f for f in facts if f not in spare]


def clipped(sequence, length):
    del sequence.ids[length:], sequence.loss[length:]
    return sequence


def draw_batch(seed, step, length, rows, single, early=0.0):
    """Rows of one step, the same for the same arguments on every machine."""
    rng = random.Random(f"{seed}/{step}")
    return [draw_sequence(rng, length, single, early) for _ in range(rows)]
