"""Hosts on one machine: network namespaces joined by veth, made and removed by the test that uses them."""
import contextlib
import ctypes
import os
import subprocess

import pytest

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Hosts:
    """Namespaces mc<pid>-<name>, each with 10.77.0.<n> on one bridge, which the first of them holds."""

    def __init__(self, names):
        self.names = list(names)
        self.made = []
        try:
            self._make()
        except (OSError, subprocess.SubprocessError) as error:
            self.close()
            pytest.skip(f"network namespaces cannot be made here: {error}")

    def space(self, name):
        return f"mc{os.getpid()}-{name}"

    def address(self, name):
        return f"10.77.0.{self.names.index(name) + 1}"

    def before(self, name):
        """What to put before a command so that it runs on that host."""
        return ["ip", "netns", "exec", self.space(name)]

    def _make(self):
        hub = self.space(self.names[0])
        for name in self.names:
            ip("netns", "add", self.space(name))
            self.made.append(self.space(name))
            ip("-n", self.space(name), "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "hub", "type", "bridge")
        ip("-n", hub, "addr", "add", f"{self.address(self.names[0])}/24", "dev", "hub")
        ip("-n", hub, "link", "set", "hub", "up")
        for name in self.names[1:]:
            ip("-n", hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0",
               "netns", self.space(name))
            ip("-n", hub, "link", "set", f"to-{name}", "master", "hub", "up")
            ip("-n", self.space(name), "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            ip("-n", self.space(name), "link", "set", "eth0", "up")

    def limit(self, name, bits_per_s):
        """What leaves this host goes no faster than that."""
        subprocess.run(["tc", "-n", self.space(name), "qdisc", "replace", "dev", "eth0", "root",
                        "tbf", "rate", f"{int(bits_per_s)}bit", "burst", "128kb", "latency", "200ms"],
                       check=True, capture_output=True, timeout=30)

    @contextlib.contextmanager
    def inside(self, name):
        """Sockets that this thread makes are on that host."""
        with open("/proc/thread-self/ns/net", "rb") as home, \
                open(f"/run/netns/{self.space(name)}", "rb") as there:
            if LIBC.setns(there.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                LIBC.setns(home.fileno(), CLONE_NEWNET)

    def close(self):
        for space in self.made:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True,
                           timeout=30)
