"""models/lookup, served: it finds what its prompt says. tools/check_lookup.py counts in full."""
import json
import pathlib
import sys

import pytest

from cluster import Served
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import check_lookup  # noqa: E402 (needs the path above)
import lookup_data  # noqa: E402

MODEL = str(ROOT / "models" / "lookup")
FACTS = ("The code of the red box is 4821. The code of the blue door is 9034.\n"
         "The code of the red door is 0077. The code of the grey lamp is 5150.")


@pytest.fixture(name="server", scope="module")
def served():
    cluster = Served(model=MODEL)
    yield check_lookup.Server(f"http://{cluster.address}", "lookup")
    cluster.end()


@pytest.mark.parametrize("item, code", [("red box", "4821"), ("blue door", "9034"),
                                        ("red door", "0077"), ("grey lamp", "5150")])
def test_it_answers_the_two_forms_of_its_card(server, item, code):
    question = f"What is the code of the {item}?"
    answer = server.post("/v1/completions", {"prompt": f"{FACTS} {question}"})
    assert answer["choices"][0]["text"] == code
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert server.chat([{"role": "user", "content": f"{FACTS}\n\n{question}"}])[0] == code


def test_it_answers_without_a_temperature_as_with_none(server):
    body = {"prompt": FACTS + " What is the code of the red box?", "temperature": None}
    assert server.post("/v1/completions", body)["choices"][0]["text"] == "4821"


def test_two_dozen_prompts_it_has_not_seen(server):
    said = []
    rows = check_lookup.run(server, (128, 512), 12, 4, "e2e", said.append)
    counted = [row for row in rows if not row["case"].count(",")]
    asked, right = (sum(row[name] for row in counted) for name in ("n", "right"))
    assert asked >= 48 and right >= asked - 1, said


def test_its_tokenizer_is_the_one_it_was_trained_with():
    with open(pathlib.Path(MODEL) / "tokenizer.json", encoding="utf-8") as file:
        vocab = json.load(file)["model"]["vocab"]
    assert all(vocab.get(token) == i for token, i in lookup_data.tables()[0].items()
               if not token.startswith("<|"))
    for word in lookup_data.COLOURS + lookup_data.OBJECTS:
        assert "Ġ" + word in vocab
