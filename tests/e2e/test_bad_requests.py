"""What strangers send: a table of bad requests, what each is answered, and that nothing stays behind.

The table is mirrored in docs/bad-requests.md; MC_WRITE_DOCS=1 writes it anew.
"""
import json
import os
import pathlib
import re
import socket

import pytest

from cluster import ByHand, until
from conftest import ROOT

KEY = "sk-for-tests"
DOCUMENT = pathlib.Path(ROOT) / "docs" / "bad-requests.md"
HOST = b"Host: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
CLOSED = 0  # no answer: the connection is closed

HEADING = """# Bad requests

What the gateway answers to what it should not be sent; the rows are those of
[tests/e2e/test_bad_requests.py](../tests/e2e/test_bad_requests.py), which sends them and holds this page to its table (`MC_WRITE_DOCS=1`
writes it anew). Every answer has `X-Request-Id` and `{"error": {"message", "type", "param", "code"}}`. Status "closed": the connection is
closed without a word, or cut off in its answer. The test's gateway has a key and `--receive-timeout 700ms`; bytes in the middle of long rows are left out.

| what | sent | status | code | param |
|---|---|---|---|---|
"""


def get(path=b"/v1/models", fields=b"", version=b"HTTP/1.1", method=b"GET"):
    return method + b" " + path + b" " + version + b"\r\n" + HOST + fields + b"\r\n"


def post(body, path=b"/v1/completions", fields=b""):
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    return (b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n" + fields +
            b"Content-Length: %d\r\n\r\n" % len(body) + body)


def chat(body):
    return post(body, b"/v1/chat/completions")


def field(name, value, **more):
    """A completion that is right but for one field; `value` is JSON."""
    rest = "".join(f", {json.dumps(key)}: {json.dumps(one)}" for key, one in more.items())
    return post('{"prompt": "x", "%s": %s%s}' % (name, value, rest))


def chunked(data, fields=b""):
    return (b"POST /v1/completions HTTP/1.1\r\n" + HOST + fields + b"Transfer-Encoding: chunked\r\n\r\n" + data)


def raw(head, body=b""):
    return head + b"\r\n" + HOST + b"\r\n" + body


def drip(data, every=0.02):
    """Byte by byte, for as long as the server listens."""
    def send(sock):
        for i in range(len(data)):
            if until_readable(sock, every):
                return
            sock.send(data[i:i + 1])
    return send


def then_hang_up(data):
    def send(sock):
        sock.sendall(data)
        sock.close()
    return send


def then_end(data):
    """Sends no more, and reads."""
    def send(sock):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    return send


def until_readable(sock, seconds):
    sock.settimeout(seconds)
    try:
        return sock.recv(1, socket.MSG_PEEK) is not None
    except TimeoutError:
        return False
    except OSError:
        return True


COMPLETION = '{"prompt": "x", "max_tokens": 2000, "ignore_eos": true, "stream": true}'
LONG = 9 << 20
LIE = post("{}").replace(b"Content-Length: 2", b"Content-Length: 200")
DEEP = "[" * 5000 + "]" * 5000

# (what, bytes or function, status, code, param); a function's row has what is shown before it.
ROWS = [
    # JSON
    ("no body", post(""), 400, "invalid_json", None),
    ("blanks only", post("  \n"), 400, "invalid_json", None),
    ("an open brace", post("{"), 400, "invalid_json", None),
    ("a comma too many", post('{"prompt": "x",}'), 400, "invalid_json", None),
    ("single quotes", post("{'prompt': 'x'}"), 400, "invalid_json", None),
    ("a comment", post('{"prompt": "x"} // please'), 400, "invalid_json", None),
    ("two documents", post('{"prompt": "x"}{"prompt": "y"}'), 400, "invalid_json", None),
    ("an array", post("[]"), 400, "invalid_json", None),
    ("a string", post('"prompt"'), 400, "invalid_json", None),
    ("null", post("null"), 400, "invalid_json", None),
    ("NaN", field("temperature", "NaN"), 400, "invalid_json", None),
    ("Infinity", field("temperature", "Infinity"), 400, "invalid_json", None),
    ("a float that no double holds", field("temperature", "1e999"), 400, "invalid_json", None),
    ("an integer that 64 bits do not hold", field("max_tokens", "9" * 40), 400, "invalid_json", None),
    ("a number that begins with 0", field("max_tokens", "016"), 400, "invalid_json", None),
    ("a field twice", post('{"prompt": "x", "prompt": "y"}'), 400, "invalid_json", None),
    ("5,000 arrays in each other", post(DEEP), 400, "invalid_json", None),
    ("5,000 arrays in each other, in a field", field("x", DEEP), 400, "invalid_json", None),
    ("bytes that are not UTF-8", post(b'{"prompt": "\xff\xfe"}'), 400, "invalid_json", None),
    ("UTF-8 cut short", post(b'{"prompt": "\xe2\x82"}'), 400, "invalid_json", None),
    ("UTF-8 in too many bytes", post(b'{"prompt": "\xc0\xaf"}'), 400, "invalid_json", None),
    ("half a pair in UTF-8", post('{"prompt": "\ud800"}'), 400, "invalid_json", None),
    ("half a pair, escaped", post('{"prompt": "\\ud800"}'), 400, "invalid_json", None),
    ("a byte order mark", post(b'\xef\xbb\xbf{"prompt": "x"}'), 400, "invalid_json", None),
    ("UTF-16", post('{"prompt": "x"}'.encode("utf-16")), 400, "invalid_json", None),
    ("a control character in a string", post(b'{"prompt": "a\x01b"}'), 400, "invalid_json", None),
    ("a NUL behind the document", post(b'{"prompt": "x"}\0'), 400, "invalid_json", None),
    ("a form", post("prompt=x&max_tokens=1"), 400, "invalid_json", None),
    # fields
    ("no prompt", post("{}"), 400, "missing", "prompt"),
    ("prompt: null", post('{"prompt": null}'), 400, "missing", "prompt"),
    ("prompt: a number", post('{"prompt": 1}'), 400, "invalid_type", "prompt"),
    ("prompt: an object", post('{"prompt": {}}'), 400, "invalid_type", "prompt"),
    ("prompt: an empty list", post('{"prompt": []}'), 400, "invalid_type", "prompt"),
    ("prompt: a token id beyond the vocabulary", post('{"prompt": [1, 99999999]}'), 400, "out_of_range", "prompt"),
    ("prompt: a negative token id", post('{"prompt": [-1]}'), 400, "out_of_range", "prompt"),
    ("prompt: half a token id", post('{"prompt": [1.5]}'), 400, "invalid_type", "prompt"),
    ("prompt: longer than the context", post(json.dumps({"prompt": "word " * 5000})), 400, "context_length_exceeded", "prompt"),
    ("model: another one", field("model", '"gpt-4"'), 404, "model_not_found", "model"),
    ("model: a number", field("model", "4"), 400, "invalid_type", "model"),
    ("max_tokens: 0", field("max_tokens", "0"), 400, "out_of_range", "max_tokens"),
    ("max_tokens: negative", field("max_tokens", "-1"), 400, "out_of_range", "max_tokens"),
    ("max_tokens: a string", field("max_tokens", '"16"'), 400, "invalid_type", "max_tokens"),
    ("max_tokens: half", field("max_tokens", "1.5"), 400, "invalid_type", "max_tokens"),
    ("temperature: negative", field("temperature", "-0.1"), 400, "out_of_range", "temperature"),
    ("temperature: true", field("temperature", "true"), 400, "invalid_type", "temperature"),
    ("top_p: 0", field("top_p", "0"), 400, "out_of_range", "top_p"),
    ("top_p: 2", field("top_p", "2"), 400, "out_of_range", "top_p"),
    ("seed: a string", field("seed", '"7"'), 400, "invalid_type", "seed"),
    ("stream: a string", field("stream", '"yes"'), 400, "invalid_type", "stream"),
    ("stream_options: without stream", field("stream_options", "{}"), 400, "contradiction", "stream_options"),
    ("logprobs: too many", field("logprobs", "1000"), 400, "out_of_range", "logprobs"),
    ("min_tokens: more than max_tokens", field("min_tokens", "9", max_tokens=5), 400, "contradiction", "min_tokens"),
    ("n: 2", field("n", "2"), 400, "unsupported", "n"),
    ("logit_bias", field("logit_bias", '{"1": 5}'), 400, "unsupported", "logit_bias"),
    ("messages: missing", chat("{}"), 400, "missing", "messages"),
    ("messages: a string", chat('{"messages": "x"}'), 400, "invalid_type", "messages"),
    ("messages: none", chat('{"messages": []}'), 400, "invalid_type", "messages"),
    ("a message: a string", chat('{"messages": ["x"]}'), 400, "invalid_type", "messages"),
    ("a message: without role", chat('{"messages": [{"content": "x"}]}'), 400, "invalid_type", "messages"),
    ("a message: content is a number", chat('{"messages": [{"role": "user", "content": 1}]}'), 400, "invalid_type", "messages"),
    ("a message: content is an image", chat('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}'), 400, "unsupported", "messages"),
    ("tools", chat('{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}'), 400, "unsupported", "tools"),
    ("response_format", chat('{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}'), 400, "unsupported", "response_format"),
    ("a message: a role nobody knows", chat('{"messages": [{"role": "king", "content": "x"}]}'), 400, "invalid_value", "messages"),
    ("prompt: texts and ids", post('{"prompt": ["x", 1]}'), 400, "invalid_type", "prompt"),
    ("prompt: 5,000 texts", post(json.dumps({"prompt": ["x"] * 5000})), 400, "out_of_range", "prompt"),
    ("stop: a number", field("stop", "1"), 400, "invalid_type", "stop"),
    ("stop: an empty text", field("stop", '""'), 400, "invalid_value", "stop"),
    ("stop: 100 texts", field("stop", json.dumps(["x"] * 100)), 400, "out_of_range", "stop"),
    ("cache_salt: a number", field("cache_salt", "1"), 400, "invalid_type", "cache_salt"),
    ("tokenize: nothing", post("{}", b"/tokenize"), 400, "missing", "prompt"),
    ("detokenize: no list", post('{"tokens": 1}', b"/detokenize"), 400, "invalid_type", "tokens"),
    ("detokenize: beyond the vocabulary", post('{"tokens": [99999999]}', b"/detokenize"), 400, "out_of_range", "tokens"),
    # where to
    ("no such path", get(b"/v1/nothing"), 404, "not_found", None),
    ("a model that is not there", get(b"/v1/models/gpt-4"), 404, "model_not_found", "model"),
    ("a path with dots", get(b"/v1/../../etc/passwd"), 404, "not_found", None),
    ("a method that is not taken", get(b"/v1/completions"), 405, "method_not_allowed", None),
    ("DELETE", get(method=b"DELETE"), 405, "method_not_allowed", None),
    ("a method nobody knows", get(method=b"BREW"), 405, "method_not_allowed", None),
    ("no key", post("{}").replace(b"Authorization", b"X-Other"), 401, "invalid_api_key", None),
    ("a wrong key", post("{}").replace(b"sk-for", b"sk-not-for"), 401, "invalid_api_key", None),
    ("another scheme", post("{}").replace(b"Bearer", b"Basic"), 401, "invalid_api_key", None),
    ("a wrong key before 9 MiB", post("x" * LONG).replace(b"sk-for", b"sk-not-for"), 401, "invalid_api_key", None),
    # HTTP
    ("HTTP/0.9", b"GET /v1/models\r\n", 400, "bad_request", None),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version", None),
    ("HTTP/3.0", get(version=b"HTTP/3.0"), 505, "http_version", None),
    ("TLS", bytes.fromhex("16030100a5010000a10303") + b"\x5a" * 100, 400, "bad_request", None),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400, "bad_request", None),
    ("binary", bytes(range(128, 256)), 400, "bad_request", None),
    ("a NUL in the path", get(b"/v1/mod\0els"), 400, "bad_request", None),
    ("a NUL in the path, escaped", get(b"/v1/models%00"), 400, "bad_request", None),
    ("a new line in the path, escaped", get(b"/v1/models%0d%0aX-Injected:1"), 400, "bad_request", None),
    ("an escape that is none", get(b"/v1/models%zz"), 400, "bad_request", None),
    ("UTF-8 in the path", get("/v1/modèls".encode()), 400, "bad_request", None),
    ("two blanks in the first line", raw(b"GET  /v1/models HTTP/1.1"), 400, "bad_request", None),
    ("lines that end with LF", get().replace(b"\r\n", b"\n"), 400, "bad_request", None),
    ("no Host", b"GET /v1/models HTTP/1.1\r\n\r\n", 400, "bad_request", None),
    ("two Hosts", get(fields=b"Host: y\r\n"), 400, "bad_request", None),
    ("a field without colon", get(fields=b"nonsense\r\n"), 400, "bad_request", None),
    ("a blank before the colon", get(fields=b"X : y\r\n"), 400, "bad_request", None),
    ("a field folded over lines", get(fields=b"X: y\r\n z\r\n"), 400, "bad_request", None),
    ("a NUL in a field", get(fields=b"X: a\0b\r\n"), 400, "bad_request", None),
    ("a carriage return in a field", get(fields=b"X: a\rX-Injected: 1\r\n"), 400, "bad_request", None),
    ("a path of 40 KB", get(b"/" + b"a" * 40000), 414, "uri_too_long", None),
    ("a field of 40 KB", get(fields=b"X: " + b"a" * 40000 + b"\r\n"), 431, "headers_too_large", None),
    ("200 fields", get(fields=b"X: a\r\n" * 200), 431, "headers_too_large", None),
    ("CONNECT", raw(b"CONNECT example.com:443 HTTP/1.1"), 400, "bad_request", None),
    ("two lengths", post("{}", fields=b"Content-Length: 3\r\n"), 400, "bad_request", None),
    ("a length and chunks", chunked(b"0\r\n\r\n", b"Content-Length: 5\r\n"), 400, "bad_request", None),
    ("a negative length", raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1"), 400, "bad_request", None),
    ("a length in hexadecimal", raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 0x2"), 400, "bad_request", None),
    ("a length of 23 digits", raw(b"POST /v1/completions HTTP/1.1\r\nContent-Length: " + b"9" * 23), 413, "body_too_large", None),
    ("another coding", raw(b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: gzip"), 501, "unsupported", None),
    ("chunks in HTTP/1.0", raw(b"POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked"), 400, "bad_request", None),
    ("a compressed body", post(b"\x1f\x8b", fields=b"Content-Encoding: gzip\r\n"), 415, "unsupported", None),
    ("chunks: garbage", chunked(b"zz\r\n{}\r\n0\r\n\r\n"), 400, "bad_request", None),
    ("chunks: longer than told", chunked(b"2\r\n{}}\r\n0\r\n\r\n"), 400, "bad_request", None),
    ("chunks: a size of 20 digits", chunked(b"f" * 20 + b"\r\n"), 400, "bad_request", None),
    ("chunks: 9 MiB", chunked(b"900000\r\n" + b"x" * LONG + b"\r\n0\r\n\r\n"), 413, "body_too_large", None),
    ("an expectation nobody knows", post("{}", fields=b"Expect: tea\r\n"), 417, "unsupported", None),
    ("9 MiB", post("x" * LONG), 413, "body_too_large", None),
    # time
    ("a head byte by byte", "drips", drip(get(fields=b"X: " + b"y" * 400)), 408, "request_timeout", None),
    ("a body byte by byte", "drips", drip(post("{" + " " * 400)), 408, "request_timeout", None),
    ("a length that is not kept", LIE, 408, "request_timeout", None),
    ("chunks without end", chunked(b"5\r\n{\"pro"), 408, "request_timeout", None),
    ("nothing at all", "connects", lambda sock: None, CLOSED, None, None),
    # hang-ups
    ("a body cut short", "Content-Length: 200, {}, end", then_end(LIE), 400, "bad_request", None),
    ("hang-up in the first line", "GET /v1/mo", then_hang_up(b"GET /v1/mo"), CLOSED, None, None),
    ("hang-up in a body", "Content-Length: 200, {}", then_hang_up(LIE), CLOSED, None, None),
    ("hang-up in chunks", "5 and two bytes", then_hang_up(chunked(b"5\r\nab")), CLOSED, None, None),
    ("hang-up before the answer", "a completion", then_hang_up(post(COMPLETION)), CLOSED, None, None),
    ("the sending side ended before the answer", "a completion", then_end(post(COMPLETION)), CLOSED, None, None),
]
ROWS = [row if len(row) == 6 else (row[0], None, *row[1:]) for row in ROWS]


def shown(text, sent):
    """What stands in the document: our own words, or the bytes without what all rows share."""
    if text:
        return text
    plain = sent.replace(HOST, b"").replace(b"Content-Type: application/json\r\n", b"")
    body = plain.partition(b"\r\n\r\n")[2]
    if plain.startswith(b"POST") and body and re.match(
            rb"POST /v1/(chat/)?completions HTTP/1.1\r\nContent-Length: \d+\r\n\r\n", plain):
        plain = body  # the head is right
    plain = repr(plain)[2:-1]
    if len(plain) > 100:
        plain = plain[:60] + " … " + plain[-30:]
    return "`" + plain.replace("|", "\\|").replace("`", "'") + "`"


def table():
    lines = []
    for what, text, sent, status, code, param in ROWS:
        lines.append("| %s | %s | %s | %s | %s |" % (
            what, shown(text, sent), status or "closed", "`%s`" % code if code else "",
            "`%s`" % param if param else ""))
    return HEADING + "\n".join(lines) + "\n"


def read_all(sock, whole):
    """What comes until the server closes, or until the answer is whole."""
    sock.settimeout(20)
    got = b""
    try:
        while True:
            part = sock.recv(65536)
            if not part:
                return got
            got += part
            head, found, body = got.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if whole and found and length and len(body) >= int(length.group(1)):
                return got
    except ConnectionResetError:
        return got


def ask(address, sent):
    """Send, and read the answer: its bytes; b"" if there is none."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        try:
            if callable(sent):
                sent(sock)
            else:
                sock.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered, and the rest is not wanted
        if sock.fileno() < 0:
            return b""
        return read_all(sock, whole=True)


def ask_row(address, row):
    """As ask(); who stood still in the middle of 9 MiB is told that time ran out, and asks again."""
    for _ in range(3):
        got = ask(address, row[2])
        if row[3] == 408 or not got.startswith(b"HTTP/1.1 408 "):
            break
    return got


def check(row, got):
    what, _, _, status, code, param = row
    if status == CLOSED:
        cut = got.startswith(b"HTTP/1.1 200 ") and b"[DONE]" not in got  # it had begun when that was seen
        assert got == b"" or cut, (what, got[:300])
        return
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), (what, got[:600])
    assert re.search(rb"\r\nX-Request-Id: [\x21-\x7e]{1,64}(\r\n|$)", head), (what, head)
    assert b"X-Injected" not in head, (what, head)
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == (code, param), (what, error)
    assert error["message"] and error["type"], what


@pytest.fixture(name="cluster", scope="module")
def with_a_key(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# of the tests\n{KEY}\n")
    keys.chmod(0o600)
    asan = os.environ.get("ASAN_OPTIONS", "")  # freed memory is to be given back, that is the question
    asan += ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    cluster = ByHand(gateway=[f"--api-key-file={keys}", "--receive-timeout=700ms"],
                     variables={"gateway": {"ASAN_OPTIONS": asan}})
    yield cluster
    cluster.end()


def rss(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) << 10


def held(cluster):
    """What bad requests could leave behind."""
    found = {"descriptors": len(os.listdir(f"/proc/{cluster.roles['gateway'].pid}/fd"))}
    gateway = cluster.stats("gateway")
    found.update({name: gateway["gateway_" + name] for name in ("requests_active", "http_connections")})
    for name in ("prefill-1", "decode-1"):
        worker = cluster.stats(name)
        found.update({f"{name} {what}": worker["worker_" + what]
                      for what in ("pages_free", "reservations", "queued", "prefilling", "decoding")})
    return found


def complete(cluster):
    body = json.dumps({"prompt": "x", "max_tokens": 3, "ignore_eos": True})
    got = ask(cluster.address, post(body))
    assert got.startswith(b"HTTP/1.1 200 "), got[:300]


def test_every_row_is_answered_as_the_table_says_and_leaves_nothing_behind(cluster):
    pid = cluster.roles["gateway"].pid
    complete(cluster)
    for row in ROWS:  # once for what is allocated once
        check(row, ask_row(cluster.address, row))
    cluster_idle = until(lambda: is_quiet(cluster), "nothing is under way")
    memory = rss(pid)
    for _ in range(2):
        for row in ROWS:
            check(row, ask_row(cluster.address, row))
    until(lambda: held(cluster) == cluster_idle, "everything is back")
    assert rss(pid) < memory + (8 << 20), (memory, rss(pid))
    complete(cluster)
    assert cluster.roles["gateway"].popen.poll() is None


def is_quiet(cluster):
    found = held(cluster)
    quiet = found["requests_active"] == 0 and found["http_connections"] == 0 and all(
        found[f"{name} {what}"] == 0 for name in ("prefill-1", "decode-1")
        for what in ("reservations", "queued", "prefilling", "decoding"))
    return found if quiet else None


def test_keys_are_in_no_log(cluster):
    assert KEY not in cluster.roles["gateway"].log()


def test_there_are_enough_rows_and_each_says_something_else():
    assert len(ROWS) >= 60
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_the_document_has_this_table():
    if os.environ.get("MC_WRITE_DOCS"):
        DOCUMENT.write_text(table(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == table()
