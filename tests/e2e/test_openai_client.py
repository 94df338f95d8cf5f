"""The official OpenAI client, unmodified: what works, and how it takes what does not."""
import time

import openai
import pytest

from cluster import ByHand, run_locally, until

KEY = "sk-for-tests"
PROMPT = "Which page holds the layer of that token?"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(name="cluster", scope="module")
def with_a_key(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    cluster = ByHand(gateway=[f"--api-key-file={keys}", "--requests=1"])
    yield cluster
    cluster.end()


@pytest.fixture(name="client")
def official_client(cluster):
    with connect(cluster) as client:
        yield client


def connect(cluster, key=KEY, **options):
    return openai.OpenAI(base_url=f"http://{cluster.address}/v1", api_key=key,
                         **{"max_retries": 0, "timeout": 60, **options})


def test_a_completion(client):
    expected = run_locally(PROMPT, "-n", "12")
    found = client.completions.create(model="tiny-random", prompt=PROMPT, max_tokens=12, temperature=0)
    assert found.choices[0].text == expected.text
    assert found.choices[0].finish_reason == expected.finish
    assert found.usage.prompt_tokens == expected.usage["prompt_tokens"]
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.object == "text_completion" and found.id.startswith("cmpl-")


def test_a_completion_in_a_stream(client):
    expected = run_locally(PROMPT, "-n", "12")
    stream = client.completions.create(model="tiny-random", prompt=PROMPT, max_tokens=12, temperature=0,
                                       stream=True, stream_options={"include_usage": True})
    parts = list(stream)
    assert "".join(choice.text for part in parts for choice in part.choices) == expected.text
    assert parts[-1].usage.completion_tokens == expected.usage["completion_tokens"]
    assert [choice.finish_reason for part in parts for choice in part.choices][-1] == expected.finish


def test_a_chat_and_the_same_in_a_stream(client):
    asked = {"model": "tiny-random", "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.role == "assistant"
    parts = list(client.chat.completions.create(**asked, stream=True))
    assert parts[0].choices[0].delta.role == "assistant"
    text = "".join(choice.delta.content or "" for part in parts for choice in part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_list_of_models(client):
    assert [model.id for model in client.models.list()] == ["tiny-random"]


def test_a_request_id_is_given_and_kept(client):
    raw = client.models.with_raw_response.list()
    assert raw.headers["x-request-id"].startswith("req-")
    raw = client.models.with_raw_response.list(extra_headers={"X-Request-Id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"


def test_a_wrong_key_is_an_authentication_error(cluster):
    with connect(cluster, key="sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="tiny-random", messages=MESSAGES)
    assert caught.value.status_code == 401 and caught.value.code == "invalid_api_key"
    assert caught.value.request_id.startswith("req-")
    with connect(cluster, key="sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_without_a_key_only_health_is_told(cluster):
    def get(path, headers=None):
        connection = cluster.client.connect()
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response
    assert get("/health").status == 200
    refused = get("/metrics")
    assert refused.status == 401 and refused.getheader("WWW-Authenticate").startswith("Bearer")
    assert get("/v1/models").status == 401
    assert get("/metrics", {"Authorization": f"Bearer {KEY}"}).status == 200


def test_errors_are_of_their_kinds(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="another", prompt="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny-random", prompt="x", max_tokens=-1)
    assert caught.value.param == "max_tokens" and caught.value.type == "invalid_request_error"


def busy(cluster):
    return cluster.stats("gateway")["gateway_requests_active"]


def long_stream(client):
    return client.completions.create(model="tiny-random", prompt=PROMPT, max_tokens=3000, stream=True,
                                     extra_body={"ignore_eos": True})


def test_a_full_gateway_is_a_rate_limit_error_and_a_retry_gets_in(cluster, client):
    stream = long_stream(client)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="tiny-random", prompt="x", max_tokens=1)
    assert caught.value.code == "slow_down"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    stream.close()
    until(lambda: busy(cluster) == 0, "the first one has left")

    seen = []
    hooks = {"response": [lambda response: seen.append(response.status_code)]}
    with openai.DefaultHttpxClient(event_hooks=hooks) as http, \
            connect(cluster, max_retries=3, http_client=http) as patient:
        with long_stream(client) as stream:
            next(iter(stream))
            hooks["response"].append(lambda response: stream.close())
            http.event_hooks = hooks
            begin = time.monotonic()
            found = patient.completions.create(model="tiny-random", prompt="x", max_tokens=1)
    assert seen[0] == 429 and seen[-1] == 200
    assert time.monotonic() - begin >= 0.9  # it waited as Retry-After says
    assert found.usage.completion_tokens == 1


def test_a_stream_that_is_closed_frees_its_worker(cluster, client):
    before = cluster.stats("decode-1")["worker_pages_free"]
    until(lambda: busy(cluster) == 0, "nothing runs")
    stream = long_stream(client)
    next(iter(stream))
    until(lambda: cluster.stats("decode-1")["worker_decoding"] == 1, "it decodes")
    stream.close()
    until(lambda: cluster.stats("decode-1")["worker_decoding"] == 0, "it is given up")
    until(lambda: cluster.stats("decode-1")["worker_pages_free"] >= before, "its pages are free")
    until(lambda: busy(cluster) == 0, "the gateway has forgotten it")
