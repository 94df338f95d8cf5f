"""mooncake run: prompts in, text out; JSON, signals, terminals, and every way to get it wrong."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import threading

import pytest
from conftest import (BINARY, MODEL, ROOT, TIMEOUT_S, answer, default_signals, environment,
                      mooncake, start)

LONG = "All prompts are the same prompt when they are long enough; " * 20
PROMPT = "The KVCache of a prompt"


def text_of(*arguments, **options):
    """The answer as it is streamed, without the newline behind it."""
    done = mooncake("run", MODEL, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(b"\n")
    return done.stdout[:-1]


def choice_of(*arguments, **options):
    return answer(*arguments, **options)["choices"][0]


# --------------------------------------------------------------------------------------- answers


def test_an_answer_is_streamed_and_ends_with_a_newline():
    streamed = text_of("-p", PROMPT, "-n", "40")
    assert streamed.decode() == choice_of("-p", PROMPT, "-n", "40")["text"]
    assert len(streamed) > 40


def test_the_first_text_comes_before_the_last_token():
    process = start("run", MODEL, "-p", PROMPT, "-n", "0", "--ignore-eos")
    assert process.stdout.read(1) != b""
    assert process.poll() is None  # thousands of tokens are still to come
    process.kill()
    process.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("flags", [["--chunk", "16"], ["--chunk", "64", "--threads", "1"],
                                   ["--threads", "3"], ["--context", "2048"]])
@pytest.mark.parametrize("sampling", [[], ["-t", "1", "--seed", "7"]])
def test_the_answer_does_not_depend_on_chunks_or_threads(flags, sampling):
    common = ["-p", LONG, "-n", "24", "--logprobs", "3", *sampling]
    assert choice_of(*common, *flags) == choice_of(*common)


def test_the_kernels_that_promise_the_same_bits_give_them():
    expected = choice_of("-p", LONG, "-n", "16", "--logprobs", "2", "--kernel", "ref")
    compared = 0
    for kernel in ("avx2", "avx512"):
        done = mooncake("run", MODEL, "-p", LONG, "-n", "16", "--logprobs", "2", "--kernel", kernel,
                        "--json")
        if done.returncode == 1 and b"this processor has" in done.stderr:
            continue
        assert json.loads(done.stdout)["choices"][0] == expected
        compared += 1
    if compared == 0:
        pytest.skip("this processor has only the ref kernel")


def test_a_seed_is_a_different_answer_and_the_same_seed_the_same():
    answers = [choice_of("-p", PROMPT, "-n", "30", "-t", "1", "--seed", seed)["tokens"]
               for seed in ("1", "2", "1")]
    assert answers[0] == answers[2] != answers[1]


def test_greedy_is_the_default_whatever_generation_config_says():
    config = json.loads((pathlib.Path(MODEL) / "generation_config.json").read_text())
    assert config["do_sample"] is True
    tokens = choice_of("-p", PROMPT, "-n", "30")["tokens"]
    assert tokens == choice_of("-p", PROMPT, "-n", "30", "--top-k", "1", "-t", "1")["tokens"]


def test_a_prompt_may_come_through_a_pipe_in_place_of_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("run", MODEL, "-f", str(pipe), "-n", "8")
    # A thread, because opening the pipe waits for the reader, who may have failed.
    threading.Thread(target=pipe.write_bytes, args=[PROMPT.encode()], daemon=True).start()
    streamed, complaint = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, complaint.decode()
    assert streamed[:-1] == text_of("-p", PROMPT, "-n", "8")


def test_a_model_may_write_a_nul_in_a_conversation():
    for seed in range(1, 30):  # random weights: some seed soon draws the token of byte 0
        done = mooncake("run", MODEL, "--chat", "-n", "150", "--ignore-eos", "-t", "5",
                        "--seed", str(seed), stdin=b"hi\nagain\n")
        assert done.returncode == 0 and done.stderr == b""
        if b"\0" in done.stdout[:300]:  # in the first answer, which the second turn sends back
            return
    pytest.fail("no seed made the model write a NUL")


def test_a_message_with_a_nul_is_refused_and_not_cut():
    done = mooncake("run", MODEL, "--chat", "-f", "-", "-n", "4", stdin=b"hello\0world")
    assert done.returncode == 1
    assert done.stderr == (b"mooncake run: the message has a NUL at byte 5; a chat is text\n")


def test_a_stop_string_ends_the_answer_and_is_not_shown():
    whole = choice_of("-p", PROMPT, "-n", "40")["text"]
    found = 0
    for size in (1, 2, 5, 9):
        for begin in range(0, len(whole) - size, 7):
            stop = whole[begin:begin + size]
            if "\ufffd" in stop:
                continue  # spelt by bytes that are no character
            got = choice_of("-p", PROMPT, "-n", "40", "--stop", stop, "--stop", "never said")
            assert got["text"] == whole[:whole.index(stop)]
            assert got["finish_reason"] == "stop"
            found += 1
    assert found > 4


def test_limits_end_the_answer():
    got = answer("-p", PROMPT, "-n", "5")
    assert got["usage"]["completion_tokens"] == 5 == len(got["choices"][0]["tokens"])
    assert got["choices"][0]["finish_reason"] == "length"
    got = answer("-p", PROMPT, "-n", "0", "--context", "32", "--ignore-eos")
    assert got["usage"]["total_tokens"] == 32
    assert got["choices"][0]["finish_reason"] == "length"


# ------------------------------------------------------------------------------------------ JSON


def test_json_has_the_shape_of_a_completion():
    got = answer("-p", PROMPT, "-n", "6", "--logprobs", "4")
    choice = got["choices"][0]
    logprobs = choice["logprobs"]
    assert got["object"] == "text_completion" and got["id"].startswith("cmpl-")
    assert got["model"] == "tiny-random" and got["created"] > 1700000000
    assert got["usage"]["total_tokens"] == got["usage"]["prompt_tokens"] + 6
    assert [len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs",
                                             "text_offset")] == [6] * 4
    for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"],
                                   logprobs["top_logprobs"]):
        assert len(top) == 4 and max(top.values()) == top[token] == logprob <= 0
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


def test_json_of_a_chat_is_a_chat_completion():
    got = answer("--chat", "-p", "hello", "--system", "be brief", "-n", "4", "--logprobs", "0")
    choice = got["choices"][0]
    assert got["object"] == "chat.completion" and got["id"].startswith("chatcmpl-")
    assert choice["message"]["role"] == "assistant"
    content = choice["logprobs"]["content"]
    assert len(content) == 4 and all(entry["top_logprobs"] == [] for entry in content)
    assert all(isinstance(byte, int) for entry in content for byte in entry["bytes"])
    assert got["usage"]["prompt_tokens"] > answer("--chat", "-p", "hello", "-n",
                                                  "4")["usage"]["prompt_tokens"]


def test_without_logprobs_there_are_none():
    assert choice_of("-p", PROMPT, "-n", "2")["logprobs"] is None


def test_timing_says_tokens_seconds_and_rates():
    done = mooncake("run", MODEL, "-p", LONG, "-n", "8", "--timing")
    lines = done.stderr.decode().splitlines()
    assert re.match(r"prefill: \d+ tokens in \d+\.\d+ s, [\d.]+ tokens/s, [\d.]+ GFLOP/s", lines[0])
    assert re.match(r"decode: 7 tokens in \d+\.\d+ s, [\d.]+ tokens/s, [\d.]+ GB/s", lines[1])
    timing = answer("-p", LONG, "-n", "8", "--timing")["timing"]
    assert timing["decode_tokens"] == 7 and timing["prefill_tokens_per_s"] > 0


# --------------------------------------------------------------------------------------- prompts


def test_argument_file_and_stdin_are_the_same_prompt(tmp_path):
    path = tmp_path / "prompt"
    path.write_text(PROMPT)
    expected = text_of("-p", PROMPT, "-n", "8")
    assert text_of("-f", path, "-n", "8") == expected
    assert text_of("-p", "-", "-n", "8", stdin=PROMPT.encode()) == expected
    assert text_of("-f", "-", "-n", "8", stdin=PROMPT.encode()) == expected


def test_a_prompt_of_broken_utf8_is_answered(tmp_path):
    path = tmp_path / "prompt"
    path.write_bytes(b"caf\xe9 \xf0\x9f\x98 \0 \xff\xfe")
    got = answer("-f", path, "-n", "4")
    assert got["usage"]["completion_tokens"] == 4


def test_raw_leaves_special_tokens_to_the_prompt():
    spelt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    raw = answer("--raw", "-p", spelt, "-n", "6")
    chat = answer("--chat", "-p", "hi", "-n", "6")
    assert raw["choices"][0]["tokens"] == chat["choices"][0]["tokens"]
    assert raw["usage"] == chat["usage"]


def test_settings_come_from_flag_variable_and_file(tmp_path):
    path = tmp_path / "run.conf"
    path.write_text("max-tokens = 3\nseed = 5\n")
    assert answer("-p", PROMPT, "--config", path)["usage"]["completion_tokens"] == 3
    assert answer("-p", PROMPT, "--config", path, MC_MAX_TOKENS="4")["usage"][
        "completion_tokens"] == 4
    assert answer("-p", PROMPT, "-n", "2", "--config", path, MC_MAX_TOKENS="4")["usage"][
        "completion_tokens"] == 2
    printed = mooncake("run", "--print-config", "--config", path, "--stop", "a\n", MC_TOP_K="9")
    assert printed.returncode == 0
    for line in ('# config file\nseed = "5"\n', '# environment\ntop-k = "9"\n',
                 '# flag\nstop = "a\\n"\n', '# default\ntemperature = "0"\n'):
        assert line in printed.stdout.decode()
    again = tmp_path / "again.conf"
    again.write_bytes(printed.stdout)
    values = [line for line in printed.stdout.splitlines() if not line.startswith(b"#")]
    repeated = mooncake("run", "--print-config", "--config", again).stdout.splitlines()
    repeated = [line for line in repeated if not line.startswith(b"#")]
    assert set(values) - {f'config = "{path}"'.encode()} == \
        set(repeated) - {f'config = "{again}"'.encode()}


# --------------------------------------------------------------------------------- conversations


def test_a_conversation_from_a_pipe_answers_line_by_line_and_remembers():
    done = mooncake("run", MODEL, "--chat", "-n", "6", stdin=b"hi\n\nhi\n")
    first, second = done.stdout.split(b"\n", 1)
    assert done.returncode == 0 and done.stderr == b""
    assert first == text_of("--chat", "-p", "hi", "-n", "6")
    assert second != first + b"\n"  # the second answer has seen the first


def test_a_conversation_that_outgrows_the_context_says_so():
    done = mooncake("run", MODEL, "--chat", "-n", "4", "--context", "32",
                    stdin=b"hi\n" + b"word " * 60 + b"\nhi\n")
    assert done.returncode == 1
    assert re.fullmatch(rb"mooncake run: the prompt has \d+ tokens; the context holds 32, answer "
                        rb"included\n.*", done.stderr, re.DOTALL)
    assert done.stdout.count(b"\n") >= 1


class Terminal:
    """mooncake on a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            default_signals()
            os.execve(BINARY, [BINARY, *arguments], environment())
        self.seen = b""

    def wait_for(self, text):
        """Read until `text` has come; what came before it is returned."""
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], TIMEOUT_S)
            assert ready, f"no {text!r} after {self.seen!r}"
            self.seen += os.read(self.fd, 4096)
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, keys):
        os.write(self.fd, keys)

    def exit_code(self):
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:  # the terminal is gone with its last process
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_ctrl_d_ends_a_conversation():
    terminal = Terminal("run", MODEL, "--chat", "-n", "5")
    terminal.wait_for(b"> ")
    terminal.type(b"hi\n")
    terminal.wait_for(b"\r\n> ")
    terminal.type(b"\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_an_answer_and_a_second_one_ends():
    terminal = Terminal("run", MODEL, "--chat", "-n", "0", "--ignore-eos")
    terminal.wait_for(b"> ")
    terminal.type(b"hi\n")
    terminal.wait_for(b"hi\r\n")  # the echo
    assert select.select([terminal.fd], [], [], TIMEOUT_S)[0]  # the answer has begun
    terminal.type(b"\x03")
    terminal.wait_for(b"\r\n> ")
    terminal.type(b"\x03")
    assert terminal.exit_code() == 130


def test_ctrl_c_at_the_prompt_asks_first():
    terminal = Terminal("run", MODEL, "--chat")
    terminal.wait_for(b"> ")
    terminal.type(b"\x03")
    terminal.wait_for(b"(Ctrl-C again, or Ctrl-D, ends)")
    terminal.wait_for(b"> ")
    terminal.type(b"\x03")
    assert terminal.exit_code() == 130


# --------------------------------------------------------------------------- signals and outputs


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_answer_cleanly(number, code):
    process = start("run", MODEL, "-p", PROMPT, "-n", "0", "--ignore-eos")
    first = process.stdout.read(1)
    process.send_signal(number)
    rest, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code
    assert errors == b"" and (first + rest).endswith(b"\n")


def catches(process, number):
    """Whether the process has a handler for the signal by now."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status).group(1), 16) >> (number - 1) & 1


def sleeps(process):
    """Whether the process waits for something."""
    stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] == "S"


def test_a_signal_while_stdin_is_read_ends_it():
    process = start("run", MODEL, "-p", "-", stdin=subprocess.PIPE)
    while not (catches(process, signal.SIGINT) and sleeps(process)):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130  # while standard input is still open
    assert process.communicate() == (b"", b"")


def test_a_signal_that_the_parent_ignores_stays_ignored():
    process = start("run", MODEL, "-p", PROMPT, "-n", "0", "--ignore-eos",
                    preexec_fn=lambda: (default_signals(),
                                        signal.signal(signal.SIGHUP, signal.SIG_IGN)))
    while not catches(process, signal.SIGTERM):
        pass
    process.send_signal(signal.SIGHUP)  # as the terminal that nohup outlives
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130  # the interrupt ended it, not the hang-up


def test_an_interrupted_json_answer_is_whole():
    printed, tries = b"", 0
    while not printed and tries < 10:  # nothing: the signal came before the answer was begun
        tries += 1
        process = start("run", MODEL, "-p", PROMPT, "-n", "0", "--ignore-eos", "--json")
        while not catches(process, signal.SIGINT):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, errors) == (130, b"")
    assert json.loads(printed)["choices"][0]["finish_reason"] == "cancelled"


def test_a_full_disk_is_an_error():
    with open("/dev/full", "wb") as full:
        for flags in ([], ["--json"], ["--print-config"], ["--help"]):
            process = start("run", MODEL, "-p", PROMPT, "-n", "3", *flags, stdout=full)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 1
            assert errors == (b"mooncake run: standard output: cannot write: No space left on "
                              b"device\n")


def test_a_reader_who_leaves_ends_the_answer():
    process = start("run", MODEL, "-p", PROMPT, "-n", "0", "--ignore-eos")
    assert process.stdout.read(1)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(TIMEOUT_S) == 1
    assert errors == b"mooncake run: standard output: cannot write: Broken pipe\n"


# ------------------------------------------------------------------------------------ wrong usage

NO_MODEL = ("which model? Give a directory with config.json, *.safetensors and tokenizer.json, as "
            "Hugging Face has them; a clone of this project has models/tiny-random")

WRONG = [
    (["run"], 2, f"mooncake run: {NO_MODEL}"),
    (["run", MODEL], 2, "mooncake run: no prompt: give -p TEXT or -f FILE (- reads standard input), "
                        "or --chat for a conversation"),
    (["run", MODEL, "-p", "x", "--max-token", "3"], 2,
     "mooncake run: unknown flag --max-token; did you mean --max-tokens?"),
    (["run", MODEL, "-p", "x", "--frobnicate"], 2,
     "mooncake run: unknown flag --frobnicate; --help lists the flags"),
    (["run", MODEL, "-p"], 2, "mooncake run: -p: needs a value: -p TEXT"),
    (["run", MODEL, "-p", "x", "-n", "many"], 2, 'mooncake run: -n: "many" is not a whole number'),
    (["run", MODEL, "-p", "x", "--max-tokens", "-1"], 2,
     "mooncake run: --max-tokens: -1 is out of range; accepted are 0 to 16777216"),
    (["run", MODEL, "-p", "x", "--temperature", "-0.5"], 2,
     "mooncake run: --temperature: -0.5 is out of range; accepted are 0 to 100"),
    (["run", MODEL, "-p", "x", "--top-p", "1.01"], 2,
     "mooncake run: --top-p: 1.01 is out of range; accepted are 0 to 1"),
    (["run", MODEL, "-p", "x", "--seed", "99999999999999999999"], 2,
     "mooncake run: --seed: 99999999999999999999 is out of range; accepted are 0 to "
     "18446744073709551615"),
    (["run", MODEL, "-p", "x", "-f", "y"], 2,
     "mooncake run: both --prompt and --file: the prompt comes from one of them"),
    (["run", MODEL, "-p", "x", "--chunk", "100"], 2,
     "mooncake run: --chunk: 100 is not a multiple of 16"),
    (["run", MODEL, "-p", "x", "--kernel", "sse"], 2,
     'mooncake run: --kernel: "sse" is not one of auto|ref|avx2|avx512|avx512-bf16'),
    (["run", MODEL, "-p", "x", "--threads", "1025"], 2,
     "mooncake run: --threads: 1025 is out of range; accepted are 0 to 1024"),
    (["run", MODEL, "-p", "x", "--json=maybe"], 2,
     'mooncake run: --json: "maybe" is not true or false'),
    (["run", MODEL, "-p", "x", "--config", "/nowhere"], 1,
     "mooncake run: /nowhere: cannot open: No such file or directory"),
    (["run", MODEL, "-p", "x", "--context", "5000"], 1,
     "mooncake run: --context: 5000 is more than the model's, 4096"),
    (["run", MODEL, "-p", "x", "--stop", ""], 2,
     "mooncake run: --stop: an empty text would end every answer"),
    (["run", MODEL, "-p", "x", *["--stop", "y"] * 17], 2,
     "mooncake run: --stop: given 17 times; at most 16 are accepted"),
    (["run", MODEL, "-p", ""], 1,
     "mooncake run: the prompt is empty: give it at least one token"),
    (["run", MODEL, "-p", "word " * 5000], 1, re.compile(
        r"mooncake run: the prompt has \d+ tokens; the context holds 4096, answer included")),
    (["run", MODEL, "-f", "/nowhere"], 1,
     "mooncake run: /nowhere: cannot open: No such file or directory"),
    (["run", MODEL, "-f", "/"], 1, "mooncake run: /: not a regular file"),
    (["run", "/nowhere", "-p", "x"], 1,
     "mooncake run: /nowhere: no such directory; MODEL is one with config.json, *.safetensors and "
     "tokenizer.json, as Hugging Face has them; a clone of this project has models/tiny-random"),
    (["rum", MODEL], 2, 'mooncake: unknown command "rum"; did you mean run?'),
    (["serve-coffee"], 2,
     'mooncake: unknown command "serve-coffee"; mooncake --help lists the commands'),
    ([], 2, "mooncake: which command? mooncake --help lists them"),
]


@pytest.mark.parametrize("arguments, code, text", WRONG,
                         ids=[" ".join(case[0])[:60].replace(MODEL, "M") for case in WRONG])
def test_wrong_usage_has_its_code_and_one_line(arguments, code, text):
    done = mooncake(*arguments)
    assert done.stdout == b""
    line = done.stderr.decode()
    assert line.endswith("\n") and line.count("\n") == 1
    if isinstance(text, str):
        assert line == text + "\n"
    else:
        assert text.fullmatch(line[:-1])
    assert done.returncode == code


def test_a_slip_in_the_environment_or_the_config_file_is_named(tmp_path):
    path = tmp_path / "c"
    path.write_text("# mine\nmax-tokns = 3\n")
    done = mooncake("run", MODEL, "-p", "x", "--config", path)
    assert (done.returncode, done.stderr.decode()) == (
        2, f'mooncake run: {path}:2: unknown setting "max-tokns"; did you mean max-tokens?\n')
    done = mooncake("run", MODEL, "-p", "x", MC_TEMPRATURE="1")
    assert (done.returncode, done.stderr.decode()) == (
        2, "mooncake run: MC_TEMPRATURE: no such setting; did you mean MC_TEMPERATURE?\n")


def test_a_prompt_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate((16 << 20) + 1)  # a hole: no byte is written
    done = mooncake("run", MODEL, "-f", path)
    assert (done.returncode, done.stderr.decode()) == (
        1, f"mooncake run: {path}: 16777217 bytes; at most 16777216 are accepted\n")


def test_a_model_without_tokenizer_is_refused_by_name(tmp_path):
    for name in ("config.json", "model.safetensors"):
        os.symlink(pathlib.Path(MODEL) / name, tmp_path / name)
    done = mooncake("run", tmp_path, "-p", "x")
    assert done.returncode == 1 and done.stdout == b""
    assert b"tokenizer" in done.stderr and done.stderr.count(b"\n") == 1


# ------------------------------------------------------------------------------------ help, docs


def test_help_and_version_come_on_standard_output():
    assert re.fullmatch(rb"mooncake \d+\.\d+\.\d+\n", mooncake("--version").stdout)
    assert b"  run       Run a model here" in mooncake("--help").stdout
    shown = mooncake("help", "run")
    assert shown.returncode == 0 and shown.stdout == mooncake("run", "--help").stdout
    assert mooncake("run", "--help", MC_SEED="x").returncode == 0


def test_the_manual_shows_the_help_as_it_is():
    manual = (ROOT / "docs" / "run.md").read_text()
    assert f"```\n{mooncake('help', 'run').stdout.decode()}```\n" in manual
