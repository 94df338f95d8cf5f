"""The roles on five hosts: nothing to share but the network, and the answers are the same."""
import secrets

import pytest

from cluster import Client, Process, run_locally, stats, until
from conftest import MODEL
from netns import Hosts

PROMPT = "Five hosts, one prompt, and its cache goes from one to the next. " * 6
COUNT = 16


@pytest.fixture(name="hosts")
def five_hosts():
    hosts = Hosts(["gateway", "master", "node", "prefill", "decode"])
    yield hosts
    hosts.close()


def start(hosts, secret):
    """One role on each host, as an operator would: addresses that others reach, and a shared secret."""
    def role(name, *arguments):
        return Process(*arguments, f"--secret-file={secret}", before=hosts.before(name))

    at = hosts.address
    roles = {"master": role("master", "master", f"--listen={at('master')}:7000")}
    master = f"--master={at('master')}:7000"
    roles["node"] = role("node", "node", "--name=node", master, f"--listen={at('node')}:7100",
                         "--memory=64M")
    roles["gateway"] = role("gateway", "gateway", master, f"--control={at('gateway')}:7200",
                            "--listen=127.0.0.1:8000", MODEL)
    for name in ("prefill", "decode"):
        roles[name] = role(name, "worker", f"--role={name}", f"--name={name}", master,
                           f"--gateway={at('gateway')}:7200", f"--listen={at(name)}:7300",
                           "--kv-memory=64M", MODEL)
    return roles


def counters(hosts, roles, name, secret):
    return stats(roles[name].said["address"], f"--secret-file={secret}", before=hosts.before(name))


def test_five_hosts_give_the_same_answer_and_move_kvcache_by_tcp_alone(hosts, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(secrets.token_bytes(32))
    roles = start(hosts, secret)
    try:
        expected = run_locally(PROMPT, "-n", str(COUNT), "--ignore-eos")
        with hosts.inside("gateway"):
            client = Client("127.0.0.1:8000")
            cold = client.complete(PROMPT, max_tokens=COUNT, ignore_eos=True, stream=True)
        assert cold.status == 200 and cold.error is None and cold.same_as(expected)
        until(lambda: counters(hosts, roles, "master", secret)["store_committed_objects"] > 2, "stored")

        def pulled():  # the gateway may not know yet what is stored
            with hosts.inside("gateway"):
                warm = client.complete(PROMPT, max_tokens=COUNT, ignore_eos=True)
            assert warm.same_as(expected)
            return int(warm.header("pulled-bytes")) > 0
        until(pulled, "it is pulled")
        for name in ("prefill", "decode"):
            found = counters(hosts, roles, name, secret)
            moved = {key: value for key, value in found.items()
                     if key.startswith("worker_transfer_") and value}
            assert any('"tcp"' in key for key in moved), moved
            assert not any('"shm"' in key for key in moved), moved
    finally:
        codes = {name: roles[name].end()
                 for name in ("gateway", "prefill", "decode", "node", "master")}
    assert set(codes.values()) == {0}, codes


def test_a_role_without_the_secret_is_let_in_nowhere(hosts, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(secrets.token_bytes(32))
    address = f"{hosts.address('master')}:7000"
    master = Process("master", f"--listen={address}", f"--secret-file={secret}",
                     before=hosts.before("master"))
    try:
        assert stats(address, f"--secret-file={secret}", before=hosts.before("gateway"))
        other = tmp_path / "other"
        other.write_bytes(secrets.token_bytes(32))
        assert not stats(address, before=hosts.before("gateway"))
        assert not stats(address, f"--secret-file={other}", before=hosts.before("gateway"))
    finally:
        assert master.end() == 0
