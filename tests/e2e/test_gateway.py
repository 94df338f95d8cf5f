"""The gateway as a client meets it: chat, errors, and what it refuses."""
import json

import pytest

from cluster import Served, run_locally, until
from conftest import MODEL, mooncake

MESSAGES = [{"role": "system", "content": "Answer shortly."},
            {"role": "user", "content": "Where does the cache of this prompt lie?"}]


@pytest.fixture(name="cluster", scope="module")
def served():
    cluster = Served("--pool-memory=64M", "--kv-memory=64M")
    yield cluster
    assert cluster.end() == 0


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
    ("/v1/completions", '{"prompt": "x", "stop": ["a", ""]}', 400, "stop"),
    ("/v1/completions", '{"prompt": ["x", 1]}', 400, "prompt"),
    ("/v1/completions", json.dumps({"prompt": ["x"] * 129}), 400, "128"),
    ("/v1/completions", json.dumps({"prompt": ["x", "word " * 5000]}), 400, "prompt[1]"),
    ("/v1/completions", '{"prompt": "x", "stop_token_ids": [999999]}', 400, "stop_token_ids"),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', 400,
     "tools"),
    ("/tokenize", '{"prompt": ["x"]}', 400, "prompt"),
    pytest.param("/tokenize", json.dumps({"prompt": "x" * 65537}), 400, "prompt", id="64-KiB"),
    ("/detokenize", '{"tokens": [-1]}', 400, "tokens"),
    ("/detokenize", "{}", 400, "tokens"),
    pytest.param("/v1/completions", json.dumps({"prompt": "x" * (7 << 20)}), 400, "4096",
                 id="7-MiB-prompt"),
    pytest.param("/v1/chat/completions", json.dumps(
        {"messages": [{"role": "user", "content": "x" * (7 << 20)}]}), 400, "4096", id="7-MiB-chat"),
    pytest.param("/tokenize", json.dumps({"prompt": "x" * (1 << 20)}), 413, "1048576", id="1-MiB"),
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


def test_small_endpoints_are_there(cluster):
    status, body = cluster.client.get("/v1/models")
    model = json.loads(body)["data"][0]
    assert status == 200 and model["id"] == "tiny-random"
    status, body = cluster.client.get("/v1/models/tiny-random")
    assert status == 200 and json.loads(body) == model
    status, body = cluster.client.get("/v1/models/other")
    assert status == 404 and json.loads(body)["error"]["code"] == "model_not_found"
    assert cluster.client.get("/health")[0] == 200
    assert cluster.client.get("/health/ready")[0] == 200
    status, body = cluster.client.get("/version")
    version = mooncake("--version").stdout.decode().split()[1]
    assert status == 200 and json.loads(body) == {"version": version}
    status, body = cluster.client.get("/metrics")
    assert status == 200 and "mooncake_gateway_requests" in body


@pytest.mark.parametrize("method, path, status, allow", [
    ("HEAD", "/health", 200, None), ("HEAD", "/v1/models", 200, None),
    ("OPTIONS", "/v1/completions", 200, "POST, OPTIONS"),
    ("OPTIONS", "/health/ready", 200, "GET, HEAD, OPTIONS"), ("OPTIONS", "/nothing", 404, None),
    ("PUT", "/v1/models", 405, "GET, HEAD, OPTIONS"), ("HEAD", "/tokenize", 405, "POST, OPTIONS")])
def test_other_methods_are_answered(cluster, method, path, status, allow):
    connection = cluster.client.connect()
    connection.request(method, path)
    response = connection.getresponse()
    response.read()
    assert response.status == status and response.getheader("Allow") == allow
    connection.request("GET", "/health")  # the connection goes on
    assert connection.getresponse().status == 200
    connection.close()


# ------------------------------------------------------------------------------------------ text

TEXTS = ["One.", "The second prompt is longer, and so on.", "\u00e9\u4e16 and bytes"]


def tokenize(cluster, **fields):
    status, body = post(cluster, "/tokenize", json.dumps(fields))
    assert status == 200, body
    return json.loads(body)


@pytest.mark.parametrize("text", [*TEXTS, ""])
def test_text_becomes_tokens_and_comes_back(cluster, text):
    bare = tokenize(cluster, prompt=text, add_special_tokens=False, return_token_strs=True)
    assert bare["count"] == len(bare["tokens"]) == len(bare["token_strs"])
    assert bare["max_model_len"] == 4096
    status, body = post(cluster, "/detokenize", json.dumps({"tokens": bare["tokens"]}))
    assert status == 200 and json.loads(body) == {"prompt": text}


def test_a_chat_is_tokenized_as_it_is_prompted(cluster):
    tokens = tokenize(cluster, messages=MESSAGES, add_generation_prompt=True)
    assert tokens["token_strs"] is None
    usage = json.loads(chat(cluster, max_tokens=1)[1])["usage"]
    assert usage["prompt_tokens"] == tokens["count"]
    text = json.loads(post(cluster, "/detokenize", json.dumps({"tokens": tokens["tokens"]}))[1])
    assert MESSAGES[1]["content"] in text["prompt"]


def idle(cluster):
    """Its workers hold nothing. What the gateway ends early is given back some time after the answer."""
    found = [cluster.stats(name) for name in ("prefill-1", "decode-1")]
    return all(each["worker_pages_free"] == each["worker_pages"] and not any(
        each["worker_" + what] for what in ("reservations", "queued", "prefilling", "decoding")) for each in found)


# --------------------------------------------------------------------------------------- prompts

def complete(cluster, **fields):
    """The object of a whole answer, or what a stream's chunks make of it."""
    body = {"model": "tiny-random", "max_tokens": 24, "temperature": 0, "return_token_ids": True,
            **fields}
    status, text = post(cluster, "/v1/completions", json.dumps(body))
    assert status == 200, text
    return gather(text) if fields.get("stream") else json.loads(text)


def gather(text):
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]" and text.endswith("data: [DONE]\n\n")
    choices, whole = {}, {}
    for event in map(json.loads, events[:-1]):
        whole["usage"] = event.get("usage") or whole.get("usage")
        for part in event["choices"]:
            choice = choices.setdefault(part["index"], {"index": part["index"], "text": "",
                                                        "tokens": [], "logprobs": None})
            assert "finish_reason" not in choice  # nothing follows the end
            choice["text"] += part["text"]
            choice["tokens"] += part["tokens"]
            if part["finish_reason"]:
                choice["finish_reason"] = part["finish_reason"]
                choice["stop_reason"] = part["stop_reason"]
    whole["choices"] = [choices[index] for index in sorted(choices)]
    return whole


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_ids", [False, True])
def test_each_prompt_is_answered_as_if_it_were_alone(cluster, as_ids, stream):
    prompts = [tokenize(cluster, prompt=text)["tokens"] for text in TEXTS] if as_ids else TEXTS
    options = {"stream_options": {"include_usage": True}} if stream else {}
    together = complete(cluster, prompt=prompts, stream=stream, **options)
    alone = [complete(cluster, prompt=prompt) for prompt in prompts]
    for index, (choice, one) in enumerate(zip(together["choices"], alone, strict=True)):
        assert choice == {**one["choices"][0], "index": index}
    for what in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together["usage"][what] == sum(one["usage"][what] for one in alone)


def test_a_hang_up_ends_all_prompts(cluster):
    cluster.settle()
    until(lambda: idle(cluster), "what was before is over")
    connection, response = cluster.client.post(
        {"prompt": TEXTS * 3, "max_tokens": 3000, "ignore_eos": True, "stream": True})
    assert response.read(100)
    connection.close()
    response.close()
    until(lambda: idle(cluster), "everything is back")


# ----------------------------------------------------------------------------------------- stops

@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", TEXTS)
def test_a_stop_text_ends_the_answer_as_in_run(cluster, prompt, stream):
    full = complete(cluster, prompt=prompt, ignore_eos=True, max_tokens=40)["choices"][0]
    middle = len(full["text"]) // 2
    stop = full["text"][middle:middle + 5]
    local = run_locally(prompt, "-n", "40", "--ignore-eos", "--stop", stop)
    assert local.finish == "stop"
    choice = complete(cluster, prompt=prompt, ignore_eos=True, max_tokens=40, stream=stream,
                      stop=["not in there at all", stop])["choices"][0]
    assert choice["text"] == local.text == full["text"][:full["text"].index(stop)]
    assert choice["tokens"] == local.tokens == full["tokens"][:len(choice["tokens"])]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    shown = complete(cluster, prompt=prompt, ignore_eos=True, max_tokens=40, stream=stream,
                     stop=stop, include_stop_str_in_output=True)["choices"][0]
    assert shown["text"] == choice["text"] + stop


def test_a_stop_text_waits_for_min_tokens(cluster):
    full = complete(cluster, prompt=TEXTS[1], ignore_eos=True, max_tokens=40)["choices"][0]
    stop = full["text"][2]
    choice = complete(cluster, prompt=TEXTS[1], ignore_eos=True, max_tokens=40, min_tokens=20,
                      stop=stop)["choices"][0]
    assert len(choice["tokens"]) >= 20
    assert full["text"].startswith(choice["text"])
    if choice["finish_reason"] == "stop":
        assert choice["stop_reason"] == stop


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_stop_token_ends_the_answer(cluster, ignore_eos):
    full = complete(cluster, prompt=TEXTS[1], ignore_eos=ignore_eos)["choices"][0]
    token = full["tokens"][8]
    first = full["tokens"].index(token)
    choice = complete(cluster, prompt=TEXTS[1], ignore_eos=ignore_eos,
                      stop_token_ids=[token])["choices"][0]
    assert choice["tokens"] == full["tokens"][:first + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", token)
    shown = complete(cluster, prompt=TEXTS[1], ignore_eos=ignore_eos, stop_token_ids=[token],
                     include_stop_str_in_output=True)["choices"][0]
    assert shown["text"].startswith(choice["text"]) and full["text"].startswith(shown["text"])


def test_what_was_stopped_holds_nothing(cluster):
    def chosen():
        return cluster.stats("decode-1")["worker_output_tokens"]

    cluster.settle()
    until(lambda: idle(cluster), "what was before is over")
    before = chosen()
    full = complete(cluster, prompt=TEXTS[1], ignore_eos=True, max_tokens=40)["choices"][0]
    answer = complete(cluster, prompt=TEXTS[1], ignore_eos=True, max_tokens=3000,
                      stop=full["text"][4:8])
    assert answer["usage"]["completion_tokens"] < 40
    until(lambda: idle(cluster), "its pages are back")
    assert chosen() - before < 3000  # it was ended, it did not end


# ------------------------------------------------------------------------------------------ salt

def test_two_salts_share_no_blocks(cluster):
    prompt = "Whoever shares a cache can tell by the time it takes what others asked. " * 4

    def reused(**fields):
        usage = complete(cluster, prompt=prompt, max_tokens=2, **fields)["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert reused(cache_salt="mine", user="me") == 0
    until(lambda: reused(cache_salt="mine") > 0, "the pool has it")
    assert reused(cache_salt="yours") == 0
    assert reused() == 0
    until(lambda: reused() > 0, "the pool has it unsalted, too")
    assert reused(cache_salt="theirs") == 0
