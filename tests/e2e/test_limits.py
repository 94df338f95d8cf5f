"""Bounds of the door that only processes and addresses show: descriptors, connections of one address, many at once."""
import shutil
import socket

import pytest

from cluster import Process, stats, until
from conftest import MODEL

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def gateway(*arguments, **options):
    return Process("gateway", "--listen=127.0.0.1:0", "--control=127.0.0.1:0", *arguments, MODEL, **options)


def connect(address, host=None):
    where, _, port = address.rpartition(":")
    return socket.create_connection((host or where, int(port)), timeout=20)


def own_address():
    """An address of this machine that is not loopback; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
            host = sock.getsockname()[0]
        except OSError:
            return None
    return None if host.startswith("127.") else host


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not there")
def test_with_few_descriptors_it_takes_fewer_connections_and_says_so():
    role = gateway(before=["prlimit", "--nofile=700:700"])
    try:
        until(lambda: "event=descriptors_short limit=700 connections=100 wanted=8192" in role.log(), "it says so")
        sock = connect(role.said["address"])
        sock.sendall(GET)
        assert sock.recv(100).startswith(b"HTTP/1.1 ")
        sock.close()
    finally:
        role.end()


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not there")
def test_a_low_soft_limit_is_raised():
    role = gateway(before=["prlimit", "--nofile=256:"])
    try:
        with open(f"/proc/{role.pid}/limits", encoding="ascii") as limits:
            line = next(line for line in limits if line.startswith("Max open files"))
        soft, hard = line.split()[3:5]
        assert soft == hard
    finally:
        role.end()


@pytest.mark.skipif(own_address() is None, reason="this machine has loopback alone")
def test_an_address_has_so_many_connections_and_loopback_any_number():
    role = Process("gateway", "--listen=0.0.0.0:0", "--insecure", "--control=127.0.0.1:0",
                   "--connections-per-address=3", MODEL)
    try:
        def ask(host):
            sock = connect(role.said["address"], host)
            sock.sendall(GET)
            try:
                return sock, sock.recv(100).startswith(b"HTTP/1.1 ")
            except ConnectionResetError:
                return sock, False
        asked = [ask(own_address()) for _ in range(5)]
        assert [answered for _, answered in asked] == [True] * 3 + [False] * 2
        assert all(answered for _, answered in [ask("127.0.0.1") for _ in range(5)])
        asked[0][0].close()
        until(lambda: ask(own_address())[1], "a place is free again")
        assert stats(role.said["control"])["gateway_http_connections_turned_away"] >= 2
    finally:
        role.end()


def test_more_connections_than_there_are_places_are_all_served():
    role = gateway("--connections=50")
    try:
        socks = [connect(role.said["address"]) for _ in range(200)]
        for sock in socks:  # idle ones make room for who asks
            try:
                sock.sendall(GET)
                sock.recv(1000)
            except OSError:
                pass
        sock = connect(role.said["address"])
        sock.sendall(GET)
        assert sock.recv(100).startswith(b"HTTP/1.1 ")
        assert stats(role.said["control"])["gateway_http_connections_evicted"] >= 100
        for each in socks:
            each.close()
    finally:
        role.end()


def test_a_thousand_connections_stay_and_are_all_answered_again():
    role = gateway()
    try:
        socks = [connect(role.said["address"]) for _ in range(1000)]
        for _ in range(3):
            for sock in socks:
                sock.sendall(GET)
            for sock in socks:
                assert sock.recv(4096).startswith(b"HTTP/1.1 ")
        for sock in socks:
            sock.close()
        until(lambda: stats(role.said["control"])["gateway_http_connections"] == 0, "all are gone")
    finally:
        role.end()
