"""A client that hangs up while queued, in prefill, in decode: everything it held is back."""
import socket

import pytest

from cluster import ByHand, until

LONG = "A long prompt takes many steps, and somebody may lose patience meanwhile. " * 40
SHORT = "Tell me everything."


def held(cluster):
    """What a request can hold, at all workers."""
    found = [cluster.stats(name) for name in ("prefill-1", "decode-1")]
    return {what: sum(each["worker_" + what] for each in found)
            for what in ("pages_free", "reservations", "queued", "prefilling", "decoding")}


def begin(cluster, prompt, count):
    """Send a request and read nothing: the socket, to be closed."""
    connection = cluster.client.connect()
    body = ('{"model": "tiny-random", "prompt": "%s", "max_tokens": %d, "ignore_eos": true, "stream": true}' %
            (prompt, count)).encode()
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    return connection.sock


def hang_up(sock):
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@pytest.fixture(name="cluster")
def slow_cluster():
    """Chunks of one page and the plain kernel, so that prompts take their time."""
    cluster = ByHand(worker=["--threads=1", "--chunk=16", "--kernel=ref"],
                     each={"prefill-1": ["--sequences=1"]})
    yield cluster
    cluster.end()


def test_in_decode(cluster):
    before = held(cluster)
    sock = begin(cluster, SHORT, 2000)
    assert sock.recv(100)  # it answers
    until(lambda: held(cluster)["decoding"] == 1, "it decodes")
    hang_up(sock)
    until(lambda: held(cluster) == before, "everything is back")


def test_in_prefill(cluster):
    before = held(cluster)
    sock = begin(cluster, LONG, 10)
    until(lambda: held(cluster)["reservations"] == 1, "its pages are reserved")
    hang_up(sock)
    until(lambda: held(cluster) == before, "everything is back")


def test_while_queued(cluster):
    before = held(cluster)
    socks = [begin(cluster, LONG, 10) for _ in range(4)]
    until(lambda: held(cluster)["queued"] >= 2, "some wait")
    for sock in reversed(socks):
        hang_up(sock)
    until(lambda: held(cluster) == before, "everything is back")
    assert cluster.client.complete(SHORT, max_tokens=4).status == 200
