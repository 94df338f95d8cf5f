"""curl, as people type it."""
import json
import shutil
import subprocess

import pytest

from cluster import Served
from conftest import ROOT, mooncake

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")


@pytest.fixture(name="served", scope="module")
def one_served():
    served = Served("--api-key=sk-one,sk-two", "--requests=7", "--headers=4K")
    yield served
    served.end()


def curl(*arguments, stdin=None):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], input=stdin,
                          capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def url(served, path):
    return f"http://{served.address}{path}"


BEARER = ["-H", "Authorization: Bearer sk-two"]
JSON = ["-H", "Content-Type: application/json"]


def test_a_stream_comes_event_by_event(served):
    body = json.dumps({"prompt": "One, two,", "max_tokens": 5, "ignore_eos": True, "stream": True})
    code, out, err = curl("-N", url(served, "/v1/completions"), *BEARER, *JSON, "-d", body)
    assert code == 0, err
    events = [line for line in out.split("\n") if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]" and len(events) >= 3
    assert out.endswith("data: [DONE]\n\n")


def test_one_connection_serves_many_requests(served):
    one = [url(served, "/v1/models"), *BEARER, "-o", "/dev/null", "-w", "%{num_connects} %{http_code}\\n"]
    words = []
    for _ in range(20):
        words += ["--next", "-sS", *one]
    code, out, err = curl(*words[1:])
    assert code == 0, err
    lines = out.split("\n")[:-1]
    assert lines == ["1 200"] + ["0 200"] * 19


def test_bad_json_is_told(served):
    code, out, _ = curl(url(served, "/v1/completions"), *BEARER, *JSON, "-d", '{"prompt": ', "-w", "%{http_code}")
    assert code == 0 and out.endswith("400")
    assert json.loads(out[:-3])["error"]["code"] == "invalid_json"


def test_a_body_that_waits_for_100_continue_is_taken_and_one_that_is_too_long_is_not_sent(served):
    big = json.dumps({"prompt": "x", "max_tokens": 1, "user": "y" * 2000000})
    expects = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"]  # else it sends by itself after a second
    code, out, err = curl("-v", url(served, "/v1/completions"), *BEARER, *JSON, *expects,
                          "-d", "@-", "-w", "%{http_code}", stdin=big.encode())
    assert code == 0 and out.endswith("200") and "100 Continue" in err, (out, err)
    code, out, err = curl(url(served, "/v1/completions"), *BEARER, *JSON, *expects,
                          "-d", "@-", "-w", "%{http_code} %{size_upload}", stdin=b"x" * (9 << 20))
    assert code == 0 and out.endswith("413 0"), (out[-200:], err)


def test_keys_and_head_and_old_http(served):
    assert curl(url(served, "/v1/models"), "-o", "/dev/null", "-w", "%{http_code}")[1] == "401"
    assert curl("-I", url(served, "/health"))[1].startswith("HTTP/1.1 200")
    code, out, _ = curl("--http1.0", url(served, "/v1/models"), *BEARER)
    assert code == 0 and json.loads(out)["object"] == "list"
    assert curl(url(served, "/v1/models"), *BEARER, "-H", "X: " + "y" * 5000, "-o", "/dev/null",
                "-w", "%{http_code}")[1] == "431"


def test_keys_are_in_no_arguments_of_the_gateway_and_in_no_log(served):
    with open(f"/proc/{served.members()['gateway']}/cmdline", "rb") as arguments:
        assert b"sk-" not in arguments.read()
    assert "sk-one" not in served.process.log()
    shown = mooncake("serve", "--print-config", "--api-key=sk-one")
    assert shown.returncode == 0 and b"sk-one" not in shown.stdout
    assert b"# api-key: 1, not shown" in shown.stdout


def test_a_wide_address_needs_a_key_or_consent(tmp_path):
    model = str(ROOT / "models" / "tiny-random")
    done = mooncake("gateway", "--listen=0.0.0.0:0", "--control=127.0.0.1:0", model)
    assert done.returncode == 1 and b"--api-key-file" in done.stderr and b"--insecure" in done.stderr
    keys = tmp_path / "keys"
    keys.write_text("not a key\n")
    done = mooncake("gateway", f"--api-key-file={keys}", "--control=127.0.0.1:0", model)
    assert done.returncode == 1 and b"keys:1" in done.stderr and b"not a key" not in done.stderr
    keys.write_text("")
    done = mooncake("gateway", f"--api-key-file={keys}", "--control=127.0.0.1:0", model)
    assert done.returncode == 1 and b"no key" in done.stderr
    done = mooncake("gateway", f"--api-key-file={tmp_path}/none", "--control=127.0.0.1:0", model)
    assert done.returncode == 1 and b"--api-key-file" in done.stderr
