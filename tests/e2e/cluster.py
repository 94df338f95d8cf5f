"""Roles of a cluster as processes, and a client that speaks HTTP to their gateway.

Everything started here is ended by its process id, and every wait has an end.
"""
import http.client
import json
import os
import re
import select
import signal
import subprocess
import threading
import time

from conftest import BINARY, MODEL, default_signals, environment, mooncake

READY_S = 60  # until a role says "ready"; only a hang comes near it
END_S = 60


def until(condition, what, seconds=60.0):
    """Look again and again until `condition()` gives something true; that is returned. A counter that is missing
    is looked for again, too: a role that stands still gives none.

    `seconds` only bounds what hangs: a machine that others use may stand still for some of them.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except KeyError:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Process:
    """One `mooncake COMMAND ...` that says when it is ready. Lines of its standard error are kept."""

    def __init__(self, *arguments, before=(), binary=BINARY, ready=True, **variables):
        read, write = os.pipe()
        words = [*before, binary, *map(str, arguments)]
        if ready:
            words.insert(len(before) + 2, f"--ready-fd={write}")
        self.lines = []
        self.popen = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[write], preexec_fn=default_signals, env=environment(**variables))
        os.close(write)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.said = self._ready(read) if ready else {}

    def _read(self):
        for line in self.popen.stderr:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def _ready(self, fd):
        with os.fdopen(fd) as pipe:
            end = time.monotonic() + READY_S
            while time.monotonic() < end:
                if select.select([pipe], [], [], 0.1)[0]:
                    line = pipe.readline()
                    if line.startswith("ready "):
                        return dict(word.split("=", 1) for word in line.split()[1:])
                    break
        self.kill()
        self.reader.join(10)  # what it said last
        raise AssertionError("not ready: " + "\n".join(self.lines[-20:]))

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return "\n".join(self.lines)

    def send(self, number):
        self.popen.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Ask it to end; its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            self.popen.send_signal(signal.SIGCONT)
        try:
            code = self.popen.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("does not end: " + "\n".join(self.lines[-20:])) from None
        self.reader.join(END_S)
        return code

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(END_S)


def stats(address, *arguments, before=()):
    """The counters of a role, as a dictionary; {} when it is not there."""
    done = subprocess.run([*before, BINARY, "stats", address, "--json", "--timeout=25s", *arguments],
                          timeout=END_S, capture_output=True, check=False, env=environment())
    return json.loads(done.stdout) if done.returncode == 0 else {}


class Answer:
    """What the gateway said to one request: status, headers, and the parts of a completion."""

    def __init__(self, status, headers, body=None):
        self.status, self.headers, self.body = status, headers, body
        self.tokens, self.logprobs, self.top, self.text = [], [], [], ""
        self.finish, self.error, self.usage, self.done = None, None, None, False
        self.first_s = self.end_s = None

    def add(self, part):
        if "error" in part:
            self.error = part["error"]
            return
        self.usage = part.get("usage") or self.usage
        for choice in part.get("choices", []):
            self.text += choice.get("text") or ""
            self.tokens += choice.get("tokens") or []
            logprobs = choice.get("logprobs") or {}
            self.logprobs += logprobs.get("token_logprobs") or []
            self.top += logprobs.get("top_logprobs") or []
            self.finish = choice.get("finish_reason") or self.finish

    def same_as(self, other):
        return (self.tokens, self.logprobs, self.top, self.finish) == (
            other.tokens, other.logprobs, other.top, other.finish)

    def header(self, name):
        return self.headers.get("x-mooncake-" + name)


class Client:
    """Completions over HTTP, with the standard library alone."""

    def __init__(self, address, timeout=120, model="tiny-random"):
        self.host, _, port = address.rpartition(":")
        self.port, self.timeout, self.model = int(port), timeout, model

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)

    def get(self, path):
        connection = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, body, path="/v1/completions", headers=None):
        """Begin a request: (connection, response)."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(body),
                           {"Content-Type": "application/json", **(headers or {})})
        return connection, connection.getresponse()

    def complete(self, prompt, headers=None, **fields):
        """One completion, streamed if fields say so."""
        begin = time.monotonic()
        body = {"model": self.model, "prompt": prompt, "logprobs": 5, "temperature": 0, "return_token_ids": True, **fields}
        connection, response = self.post(body, headers=headers)
        try:
            names = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, names)
            if names.get("content-type", "").startswith("text/event-stream"):
                self._events(response, answer, begin)
            else:
                answer.body = response.read().decode()
                answer.first_s = time.monotonic() - begin
                answer.add(json.loads(answer.body))
            answer.end_s = time.monotonic() - begin
            return answer
        finally:
            connection.close()

    @staticmethod
    def _events(response, answer, begin):
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                answer.done = True
                continue
            if answer.first_s is None:
                answer.first_s = time.monotonic() - begin
            answer.add(json.loads(line[6:]))


def run_locally(prompt, *arguments, model=MODEL):
    """The same answer from `mooncake run`: what every other way is held against."""
    done = mooncake("run", model, "-p", prompt, "--json", "--logprobs", "5", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    answer = Answer(200, {})
    answer.add(json.loads(done.stdout))
    return answer


class Served:
    """`mooncake serve`, and the processes below it."""

    MEMBER = re.compile(r"serve +\| (\S+) runs as process (\d+)")
    ADDRESS = re.compile(r"^(\S+) +\| .*event=ready .*?(?:control|address)=(\S+)")

    def __init__(self, *arguments, model=MODEL, **options):
        self.process = Process("serve", "--listen=127.0.0.1:0", "--stall=1s", *arguments, model,
                               **options)
        self.address = self.process.said["address"]
        self.client = Client(self.address, model=os.path.basename(model))

    def members(self):
        """Name -> process id, of the last life of each."""
        return {name: int(pid) for name, pid in self.MEMBER.findall(self.process.log())}

    def control(self, name):
        """Where a member answers `mooncake stats`, in its last life; None: it has not said so yet."""
        found = None
        for line in self.process.lines:
            began = self.MEMBER.search(line)
            if began and began.group(1) == name:
                found = None
            match = re.match(r"^(\S+) +\| .*event=ready (.*)$", line)
            if match and match.group(1) == name:
                words = dict(word.split("=", 1) for word in match.group(2).split() if "=" in word)
                found = words.get("control") or words.get("address")
        return found

    def stats(self, name):
        return stats(until(lambda: self.control(name), f"{name} says where it is"))

    def settle(self):
        """Until its workers have timed themselves: meanwhile they hold pages, and begin anew after work."""
        workers = [name for name in self.members() if name.startswith(("prefill", "decode", "both"))]

        def measured():
            return self.control("gateway") and self.stats("gateway").get("gateway_workers_measured", 0)
        until(lambda: (measured() or 0) >= len(workers), "workers are measured", READY_S)

    def end(self):
        """Ask it to end, and hold it to leaving nothing behind."""
        pids = list(self.members().values())
        code = self.process.end()
        left = [pid for pid in pids if alive(pid)]
        assert not left, f"processes left behind: {left}"
        return code


def alive(pid):
    """Whether a process is there and not merely unburied."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class ByHand:
    """The roles of a cluster, each started as an operator would start it on a machine of its own."""

    def __init__(self, workers=("prefill", "decode"), nodes=1, model=MODEL, common=(), gateway=(),
                 worker=(), node=(), binary=BINARY, each=None, variables=None):
        self.model, self.binary, self.common = model, binary, list(common)
        self.gateway_flags, self.worker_flags, self.node_flags = gateway, worker, node
        self.each = each or {}  # name -> more flags
        self.variables = variables or {}  # name -> environment
        self.roles = {}
        try:
            self._start(workers, nodes)
        except BaseException:
            self.kill()
            raise

    def _start(self, workers, nodes):
        self.start_master()
        for i in range(1, nodes + 1):
            self.start_node(f"node-{i}")
        self.start_gateway()
        numbers = {}
        for role in workers:
            numbers[role] = numbers.get(role, 0) + 1
            self.start_worker(f"{role}-{numbers[role]}")

    def _begin(self, name, *arguments):
        self.roles[name] = Process(*arguments, *self.common, *self.each.get(name, ()),
                                   binary=self.binary, **self.variables.get(name, {}))
        return self.roles[name]

    def start_master(self, listen="127.0.0.1:0"):
        self.master = self._begin("master", "master", f"--listen={listen}").said["address"]

    def start_node(self, name):
        self._begin(name, "node", f"--name={name}", f"--master={self.master}", "--memory=64M",
                    *self.node_flags)

    def start_gateway(self):
        said = self._begin("gateway", "gateway", "--listen=127.0.0.1:0", "--control=127.0.0.1:0",
                           f"--master={self.master}", "--debug-headers", "--measure=false",
                           *self.gateway_flags,
                           self.model).said
        self.address, self.control = said["address"], said["control"]
        self.client = Client(self.address, model=os.path.basename(self.model))

    def start_worker(self, name):
        self._begin(name, "worker", f"--role={name.split('-')[0]}", f"--name={name}",
                    f"--master={self.master}", f"--gateway={self.control}", "--kv-memory=64M",
                    *self.worker_flags, self.model)

    def stats(self, name):
        said = self.roles[name].said
        return stats(said.get("control") or said["address"])

    def kill(self):
        for role in self.roles.values():
            role.kill()

    def end(self):
        """End in order; every role must leave with 0."""
        def rank(name):
            return ["gateway", "prefill", "decode", "both", "node", "master"].index(
                name.split("-")[0])
        codes = {name: self.roles[name].end() for name in sorted(self.roles, key=rank)}
        assert set(codes.values()) == {0}, codes
