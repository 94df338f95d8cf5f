"""Many streams at once, from one process that costs little: sockets under asyncio, and no HTTP library.

Each stream has a connection of its own and one request under way at any time. It makes a prompt of facts,
    The code of the red box is 4821. The code of the blue door is 9034. ...
and asks it one question for each of the prompt's pages, about a fact that lies there:
    What is the code of the blue door?
so all but the first find the prompt in the pool. Then it makes another prompt.
"""
import asyncio
import collections
import json
import random
import time

COLOURS = ("red blue green black white brown pink grey yellow orange purple violet silver gold crimson "
           "scarlet cyan magenta turquoise teal navy beige ivory maroon").split()
OBJECTS = ("box car door book lamp chair table cup bag ball bed bell bench bicycle bike bird boat bottle "
           "bowl brush bucket bus cake camera candle cap card carpet cart case cat chest clock coat coin "
           "computer crate curtain desk dish").split()
FACT_TOKENS = 13  # in the bundled model's tokens, about
PAGE_TOKENS = 16


class Prompt:
    """Facts that fill about `pages` pages, and questions about them."""

    def __init__(self, chance, pages):
        self.pages = pages
        count = min(max(1, pages * PAGE_TOKENS // FACT_TOKENS), len(COLOURS))
        # No colour and no object twice: the bundled model takes one fact for another of the same colour once
        # in some thousand questions, and what is looked for here are the server's mistakes.
        things = zip(chance.sample(COLOURS, count), chance.sample(OBJECTS, count))
        self.facts = [(f"{colour} {thing}", f"{chance.randrange(10000):04d}") for colour, thing in things]
        self.text = " ".join(f"The code of the {thing} is {code}." for thing, code in self.facts)

    def questions(self):
        """(question, its answer), one for each page."""
        for page in range(self.pages):
            thing, code = self.facts[page * len(self.facts) // self.pages]
            yield f"What is the code of the {thing}?", code


class Stream(asyncio.Protocol):
    """One connection; ask() sends a request and gives its whole answer."""

    def __init__(self):
        self.bytes, self.answer, self.transport, self.first_s = b"", None, None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.first_s is None:
            self.first_s = time.monotonic()
        self.bytes += data
        if self.bytes.endswith(b"0\r\n\r\n") or self._is_whole():
            self._end(self.bytes)

    def _is_whole(self):
        head, found, body = self.bytes.partition(b"\r\n\r\n")
        if not found or b"chunked" in head:
            return False
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        return len(body) >= int(length or 0)

    def connection_lost(self, error):
        self._end(b"")

    def _end(self, answer):
        if self.answer and not self.answer.done():
            self.answer.set_result(answer)

    async def ask(self, path, body):
        text = json.dumps(body, separators=(",", ":")).encode()
        self.bytes, self.first_s = b"", None
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                             b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(text), text))
        return await self.answer


def text_of(answer):
    """The text of a streamed answer, and its usage; None, why if it is not whole."""
    if not answer.startswith(b"HTTP/1.1 200") or b"data: [DONE]" not in answer:
        return None, answer[-400:].decode("utf-8", "replace") or "the connection was lost"
    text, usage = "", {}
    for line in answer.split(b"data: ")[1:]:
        if line.startswith(b"[DONE]"):
            break
        part = json.loads(line[:line.index(b"\n")])
        if "error" in part:
            return None, str(part["error"])
        usage = part.get("usage") or usage
        for choice in part["choices"]:
            text += (choice.get("text") if "text" in choice
                     else choice["delta"].get("content")) or ""
    return text, usage


class Load:
    """`streams` streams against one gateway, until stop(). Not every answer of a model without training
    can be known: with `expect` "same" each question is asked twice, and must be answered alike."""

    def __init__(self, address, model, streams, pages=(8, 24), chat=False, expect="code", seed=1,
                 max_tokens=8):
        self.host, _, port = address.rpartition(":")
        self.port, self.model, self.streams, self.pages = int(port), model, streams, pages
        self.chat, self.expect, self.seed, self.max_tokens = chat, expect, seed, max_tokens
        self.counts = collections.Counter()
        self.wrong, self.failures = [], []
        self.ttft, self.whole = collections.deque(maxlen=100000), collections.deque(maxlen=100000)
        self.stopping = False

    def _request(self, prompt, question):
        body = {"model": self.model, "max_tokens": self.max_tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}}
        if self.chat:
            body["messages"] = [{"role": "user", "content": f"{prompt.text}\n{question}"}]
            return "/v1/chat/completions", body
        body["prompt"] = f"{prompt.text} {question}"
        return "/v1/completions", body

    async def _ask(self, stream, prompt, question):
        path, body = self._request(prompt, question)
        begin = time.monotonic()
        answer = await stream.ask(path, body)
        text, usage = text_of(answer)
        if text is None:
            self.counts["failed"] += 1
            self.failures = self.failures[:20] + [usage]
            return None
        self.counts["answered"] += 1
        self.counts["prompt_tokens"] += usage["prompt_tokens"]
        self.counts["output_tokens"] += usage["completion_tokens"]
        self.counts["cached_tokens"] += usage["prompt_tokens_details"]["cached_tokens"]
        self.ttft.append(stream.first_s - begin)
        self.whole.append(time.monotonic() - begin)
        return text

    def _judge(self, prompt, question, text, right):
        if text is None:
            return
        if text.strip() == right:
            self.counts["right"] += 1
            return
        self.counts["wrong"] += 1
        if len(self.wrong) < 1000:
            self.wrong.append({"prompt": prompt.text, "question": question, "answer": text,
                               "right": right})

    async def _converse(self, stream, chance):
        prompt = Prompt(chance, chance.randint(*self.pages))
        for question, code in prompt.questions():
            text = await self._ask(stream, prompt, question)
            if self.expect == "same" and text is not None:
                self._judge(prompt, question, await self._ask(stream, prompt, question),
                            text.strip())
            else:
                self._judge(prompt, question, text, code)
            if self.stopping or text is None:
                return

    async def _stream(self, number):
        chance = random.Random(f"{self.seed} {number}")
        loop = asyncio.get_running_loop()
        while not self.stopping:
            transport, stream = await loop.create_connection(Stream, self.host, self.port)
            try:
                while not self.stopping and not transport.is_closing():
                    await self._converse(stream, chance)
            finally:
                transport.close()

    async def run(self, seconds, watch=None, enough=None):
        """All streams for so long, then each to the end of its question. watch(seconds so far) is called
        each second, in a thread of its own. With `enough`: on until it says so, a minute at most."""
        loop, begin = asyncio.get_running_loop(), time.monotonic()
        tasks = [asyncio.create_task(self._stream(i)) for i in range(self.streams)]

        def goes_on(elapsed):
            return elapsed < seconds or (enough and not enough() and elapsed < 60)

        while goes_on(time.monotonic() - begin) and not any(task.done() for task in tasks):
            await asyncio.sleep(min(1.0, seconds))
            if watch:
                await loop.run_in_executor(None, watch, time.monotonic() - begin)
        self.stopping = True
        await asyncio.gather(*tasks)
        return time.monotonic() - begin
