"""Every role started wrongly says what is wrong, where, and what to do, and does not go on trying."""
import signal
import time

import pytest

from cluster import Client, Process, Served, until
from conftest import MODEL, mooncake


@pytest.mark.parametrize("flag,words", [
    ("--listen", ["master", "--listen=foo"]),
    ("--listen", ["node", "--listen=127.0.0.1"]),
    ("--master", ["node", "--master=127.0.0.1:1;here"]),
    ("--master", ["worker", MODEL, "--gateway=127.0.0.1:1", "--master=8200"]),
    ("--gateway", ["worker", MODEL, "--gateway=127.0.0.1"]),
    ("--control", ["gateway", MODEL, "--control=127.0.0.1:99999"]),
    ("--listen", ["serve", MODEL, "--listen=8000"]),
])
def test_an_address_that_is_none_is_refused_by_its_flag(flag, words):
    done = mooncake(*words)
    said = done.stderr.decode()
    assert done.returncode == 2 and said.count("\n") == 1
    assert f"mooncake {words[0]}: {flag}: " in said


@pytest.mark.parametrize("words,reason", [
    (["no-such-model"], "no-such-model: no such directory"),
    ([MODEL, "--listen=0.0.0.0:0"], "--insecure"),
])
def test_serve_ends_at_once_when_a_role_cannot_start(words, reason):
    done = mooncake("serve", *words, "--pool-memory=16M")
    said = done.stderr.decode()
    assert done.returncode == 1 and said.count(reason) == 1  # once: nothing is tried again
    assert "gateway: it cannot start, for the reason above; everything ends" in said


def test_what_serve_is_told_by_environment_and_file_is_not_told_to_its_roles(tmp_path):
    file = tmp_path / "serve.conf"
    file.write_text("both = 1\nprefill = 0\ndecode = 0\nkv-memory = 16M\npool-memory = 16M\n")
    taken = Process("master", "--listen=127.0.0.1:0")
    address = taken.said["address"]
    taken.end()
    serve = Process("serve", MODEL, MC_CONFIG=str(file), MC_LISTEN=address)
    try:
        assert serve.said["address"] == address
        answer = Client(address).complete("One, two,", max_tokens=2)
        assert answer.status == 200
    finally:
        assert serve.end() == 0


def test_a_node_that_holds_nothing_ends_at_once_without_a_master():
    node = Process("node", "--memory=16M", "--master=127.0.0.1:1", "--drain=60s")
    begin = time.monotonic()
    assert node.end(signal.SIGINT) == 0
    assert time.monotonic() - begin < 30  # the time to hand over is not waited for
    assert "could be handed" not in node.log()


def test_a_stopped_supervisor_stops_nobody():
    """As Ctrl-Z does: the roles' output is taken by nobody, and they go on."""
    served = Served("--pool-memory=16M", "--kv-memory=16M", "--log-level=debug")
    try:
        served.process.send(signal.SIGSTOP)
        client = Client(served.address)
        for i in range(400):
            assert client.complete("a", max_tokens=1).status == 200, f"request {i}"
        served.process.send(signal.SIGCONT)
        until(lambda: client.complete("a", max_tokens=1)  # it is said with the next line
              and "event=log_lines_lost" in served.process.log(), "it says what was lost")
    finally:
        served.process.send(signal.SIGCONT)
        assert served.end() == 0
