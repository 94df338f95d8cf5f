"""The gateway as a client meets it: chat, errors, and what it refuses."""
import json

import pytest

from cluster import ByHand
from conftest import MODEL, mooncake

MESSAGES = [{"role": "system", "content": "Answer shortly."},
            {"role": "user", "content": "Where does the cache of this prompt lie?"}]


@pytest.fixture(name="cluster", scope="module")
def served():
    cluster = ByHand()
    yield cluster
    cluster.end()


def post(cluster, path, body):
    connection = cluster.client.connect()
    try:
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        except BrokenPipeError:
            pass  # answered and closed before the whole body was taken
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def chat(cluster, **fields):
    return post(cluster, "/v1/chat/completions", json.dumps({
        "model": "tiny-random", "messages": MESSAGES, "max_tokens": 20, "temperature": 0, **fields}))


def test_a_chat_says_what_run_says(cluster):
    done = mooncake("run", MODEL, "--chat", "--system", MESSAGES[0]["content"], "-p",
                    MESSAGES[1]["content"], "-n", "20", "--json")
    expected = json.loads(done.stdout)["choices"][0]
    status, body = chat(cluster)
    assert status == 200
    choice = json.loads(body)["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected["message"]["content"]}
    assert choice["finish_reason"] == expected["finish_reason"]
    status, body = chat(cluster, stream=True)
    events = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
    assert status == 200 and events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == choice["message"]["content"]


@pytest.mark.parametrize("path, body, status, words", [
    ("/v1/completions", "{", 400, "JSON"),
    ("/v1/completions", "{}", 400, "prompt"),
    ("/v1/completions", '{"prompt": "x", "model": "other"}', 404, "tiny-random"),
    ("/v1/completions", '{"prompt": "x", "max_tokens": -1}', 400, "max_tokens"),
    ("/v1/completions", '{"prompt": "x", "n": 2}', 400, "n"),
    ("/v1/completions", '{"prompt": "x", "stop": ["a"]}', 400, "stop"),
    ("/v1/completions", json.dumps({"prompt": "word " * 5000}), 400, "4096"),
    ("/v1/chat/completions", '{"messages": []}', 400, "messages"),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": 1}]}', 400, "content"),
    ("/v1/nothing", "{}", 404, "/v1/nothing"),
    ("/health", "{}", 405, "GET"),
    pytest.param("/v1/completions", "x" * (9 << 20), 413, "8", id="9-MiB"),
])
def test_a_bad_request_is_told_what_is_wrong(cluster, path, body, status, words):
    found, text = post(cluster, path, body)
    assert found == status, text
    error = json.loads(text)["error"]
    assert words in error["message"], error


def test_models_health_and_metrics_are_there(cluster):
    status, body = cluster.client.get("/v1/models")
    assert status == 200 and json.loads(body)["data"][0]["id"] == "tiny-random"
    assert cluster.client.get("/health")[0] == 200
    status, body = cluster.client.get("/metrics")
    assert status == 200 and "mooncake_gateway_requests" in body
