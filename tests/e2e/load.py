"""Requests one after another from a few threads, each answer held against the right one."""
import http.client
import threading

COUNT = 40
PROMPTS = [f"Question {i}: which page holds the layer of that token, and who computed it? " * 3
           for i in range(6)]


class Load:
    """Requests one after another from a few threads, streamed and not, until told to end."""

    def __init__(self, client, expected, threads=4):
        self.client, self.expected, self.stop = client, expected, threading.Event()
        self.right, self.broken_streams, self.wrong, self.unreached = 0, [], [], 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        turn = number
        while not self.stop.is_set():
            which, stream = turn % len(PROMPTS), turn % 2 == 0
            turn += 1
            try:
                answer = self.client.complete(PROMPTS[which], max_tokens=COUNT, ignore_eos=True,
                                              stream=stream)
            except (OSError, http.client.HTTPException):
                with self.lock:
                    self.unreached += 1  # the gateway itself is away
                self.stop.wait(0.05)  # as a client that tries again; ends with the load
                continue
            self._judge(which, stream, answer)

    def _judge(self, which, stream, answer):
        with self.lock:
            if answer.error is None and answer.status == 200 and answer.same_as(self.expected[which]):
                self.right += 1
            elif stream and answer.status == 200 and answer.error is not None and answer.tokens:
                self.broken_streams.append(answer)
            elif stream and answer.status == 200 and answer.error is None and not answer.done:
                self.unreached += 1  # cut off in the middle: only with the gateway
            elif answer.status == 503 and '"no_workers"' in answer.body:
                self.unreached += 1  # a gateway that has just started, before a worker registers
            else:
                self.wrong.append((answer.status, answer.body, answer.error, answer.tokens))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
