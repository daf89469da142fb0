"""The trained name finder: what it reads, how it fails, and how it is weighed against lists and cues."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from config.checks import check_name_model
from privacy.findings import ALL_TYPES, Finding, ScrubError
from privacy.name_model import finder, weights
from privacy.name_model.decode import ModelHit, Reading
from privacy.name_model.finder import NameModel, name_model
from privacy.name_model.labels import TYPES
from privacy.name_model.network import Network
from privacy.name_model.weights import FOLDER, NameModelError, name_model_problem, read_config
from privacy.name_tier import weigh
from privacy.policy import Policy
from privacy.scrubber import Scrubber

ROOT = Path(__file__).resolve().parents[2]
FILLING = "The invoice was paid on time and nothing else has to be done about it. "


def found(text: str) -> list[tuple[str, str]]:
    reading = name_model().read([text])[0]
    return [(hit.entity_type, text[hit.start : hit.end]) for hit in reading.hits if hit.score >= 0.5]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Yesterday Zbrvenka Tolquist phoned about the leak.", ("PERSON", "Zbrvenka Tolquist")),
        ("can you ask priyanka deshmukh whether it is ready", ("PERSON", "priyanka deshmukh")),
        ("PLEASE CALL OLUWASEUN ADEYEMI BACK", ("PERSON", "OLUWASEUN ADEYEMI")),
        ("The parcel went to Bad Oeynhausen by mistake.", ("LOCATION", "Bad Oeynhausen")),
    ],
)
def test_names_in_no_list_and_in_any_case_are_found(text: str, wanted: tuple[str, str]) -> None:
    assert wanted in found(text)


def test_technical_prose_is_left_alone() -> None:
    assert found("The Parser returns a Tree; call Reader.close() and mark the Session as closed in May.") == []


def test_a_text_of_many_windows_is_read_to_its_end() -> None:
    text = FILLING * 60 + "Please write to Henrietta Vasquez about it."
    assert ("PERSON", "Henrietta Vasquez") in found(text)


def test_what_is_read_together_is_read_as_alone() -> None:
    texts = ["Ask Anna Keller.", "", "   \n", "\ue000", FILLING * 9 + "Regards, Tomasz Wilk", "x", "\ud800 and Mary Ng"]
    together = NameModel().read(texts)
    for text, reading in zip(texts, together, strict=True):
        alone = NameModel.read(name_model(), [text])[0]
        assert [hit[:3] for hit in alone.hits] == [hit[:3] for hit in reading.hits]
        places = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
        both = [[one.likelihood(*place) for place in places] for one in (alone, reading)]
        # What is hardly part of a name is not kept, on which side of that it ends is chance.
        assert np.allclose(*both, atol=1.1e-2)


def test_threads_share_one_model() -> None:
    texts = [f"{FILLING}{name} has called." for name in ("Lena Fischer", "Omar Haddad", "Jean Dupont", "Wei Zhang")]
    expected = [found(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found, texts * 5)) == expected * 5


def test_torch_is_not_loaded() -> None:
    code = (
        "import sys; from privacy.name_model.finder import name_model\n"
        "assert name_model().read(['Anna Keller called'])[0].hits\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "platform")}, timeout=120
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "names"))


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def break_it(folder: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(folder)
    elif how == "no weights":
        (folder / "delta.safetensors").unlink()
    elif how == "other weights":
        (folder / "delta.safetensors").write_bytes(b"x" * 100)
    elif how == "other graph":
        (folder / "graph.onnx").write_bytes(b"x" * 100)
    elif how == "other rest":
        (folder / "rest.onnx").write_bytes(b"x" * 100)
    elif how == "no glance":
        rewrite(folder, glance_below="none")
    elif how == "no JSON":
        (folder / "config.json").write_text("{")
    elif how == "not an object":
        (folder / "config.json").write_text("[1]")
    elif how == "other encoder":
        rewrite(folder, encoder_sha256="0" * 64)
    elif how == "other labels":
        rewrite(folder, labels=["O", "B-NAME"])
    elif how == "no check":
        rewrite(folder, check=None)
    elif how == "falling calibration":
        rewrite(folder, calibration={kind: [[0, 1], [1, 0]] for kind in TYPES})


KINDS = [
    "missing", "no weights", "other weights", "other graph", "other rest", "no glance", "no JSON", "not an object",
    "other encoder", "other labels", "no check", "falling calibration",
]  # fmt: skip


@pytest.mark.parametrize("how", KINDS)
def test_a_broken_model_is_refused_and_nothing_is_scrubbed(
    broken: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(broken, how)
    with pytest.raises(NameModelError, match="name model"):
        read_config(broken)
    assert name_model_problem(broken)
    monkeypatch.setattr(finder, "name_model", lambda: NameModel(broken))
    with pytest.raises(ScrubError, match="name model"):
        Scrubber().scrub_text("My name is Anna Keller.")


def test_weights_of_other_shapes_are_refused(broken: Path) -> None:
    rewrite(broken, layers=6)
    with pytest.raises(NameModelError, match="does not fit"):
        NameModel(broken)


def test_a_graph_of_other_layers_is_refused(broken: Path) -> None:
    rewrite(broken, layers=3)
    with pytest.raises(NameModelError, match="does not fit"):
        NameModel(broken)


def test_a_sentence_gives_the_same_whatever_it_is_read_with() -> None:
    model = NameModel()
    texts = ["Ask Anna Keller whether the parcel came.", "KASIMIR OF YPERN!" * 20, f"{FILLING} Zoe.", "x 1 2 3"]
    alone = [model.piece_probabilities(text) for text in texts]
    windows = [finder.read_pieces(model._tokenizer, text) for text in texts]
    together = model._network.probabilities([(found.ids, found.features) for found in windows])
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < 0.02


def test_the_system_check_names_the_problem(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_name_model(app_configs=None) == []
    shutil.rmtree(broken)
    monkeypatch.setattr(weights, "name_model_problem", lambda: name_model_problem(broken))
    (error,) = check_name_model(app_configs=None)
    assert error.id == "ratchet.E010"
    assert "missing" in error.msg
    assert "make names-train" in str(error.hint)


def test_the_policy_digest_knows_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Policy().digest()
    monkeypatch.setattr(weights, "model_digest", lambda: "another")
    assert Policy().digest() != before


def reading_of(text: str, named: list[float], *hits: ModelHit) -> Reading:
    ends = np.cumsum([len(word) + 1 for word in text.split(" ")]).astype(np.int32) - 1
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int32)
    return Reading(hits, starts, ends, np.array(named, dtype=np.float16))


def test_an_entry_that_the_model_doubts_counts_half() -> None:
    reading = reading_of("add Reader now", [0.0, 0.01, 0.0])
    listed = Finding(4, 10, "PERSON", 0.6, "PersonScan:name lists")
    cue = Finding(4, 10, "PERSON", 0.6, "PersonScan:cue")
    strong = Finding(4, 10, "PERSON", 0.9, "PersonScan:name lists")
    assert [f.score for f in weigh(reading, [listed, cue, strong], ALL_TYPES)] == [0.3, 0.6, 0.9]


def test_the_lists_correct_the_type_of_what_the_model_is_unsure_of() -> None:
    hit = ModelHit(4, 10, "LOCATION", 0.6, 0.6)
    reading = reading_of("see Milton now", [0.0, 0.6, 0.0], hit)
    listed = Finding(4, 10, "PERSON", 0.75, "PersonScan:name lists")
    assert weigh(reading, [listed], ALL_TYPES)[-1].entity_type == "PERSON"
    assert weigh(reading, [], ALL_TYPES)[-1].entity_type == "LOCATION"
    assert weigh(reading, [listed], ALL_TYPES)[-1].score > 0.6


def test_only_wanted_types_are_taken_and_a_cue_stays_on_record() -> None:
    reading = reading_of("I'm Ngozi now", [0.0, 0.9, 0.0], ModelHit(4, 9, "PERSON", 0.9, 0.9))
    cue = Finding(4, 9, "PERSON", 0.6, "PersonScan:cue", "i'm")
    assert weigh(reading, [], frozenset({"ADDRESS"})) == []
    assert weigh(reading, [cue], ALL_TYPES)[-1].context_word == "i'm"


def test_a_pattern_knows_better_what_a_number_is() -> None:
    hit = ModelHit(4, 10, "ADDRESS", 0.9, 0.9)
    reading = reading_of("see AB1234 now", [0.0, 0.9, 0.0], hit)
    assert weigh(reading, [Finding(4, 10, "PASSPORT", 0.4, "x")], ALL_TYPES)[-1].entity_type == "PASSPORT"
    assert weigh(reading, [Finding(4, 10, "PASSPORT", 0.1, "x")], ALL_TYPES)[-1].entity_type == "ADDRESS"


def test_long_bare_numbers_are_no_addresses() -> None:
    hits = name_model().read(["The number is 0131 496 0123.", "H1234567", "My new address: 100200300406"])
    assert [hit for reading in hits for hit in reading.hits if hit.entity_type == "ADDRESS"] == []
    assert found("Deliver it to 12 Rosemount Terrace, Perth PH1 5AA please")


def test_a_machine_that_computes_something_else_is_refused(broken: Path) -> None:
    check = json.loads((broken / "config.json").read_text())["check"]
    assert [piece > 0.5 for piece in check["named"]].count(True) >= 4
    rewrite(broken, check={**check, "named": [min(1.0, piece + 0.1) for piece in check["named"]]})
    with pytest.raises(NameModelError, match="name model says something else"):
        NameModel(broken)
    rewrite(broken, check={**check, "named": check["named"][1:]})
    with pytest.raises(NameModelError, match="name model says something else"):
        NameModel(broken)


def test_processors_whose_byte_products_overflow_take_the_longer_way_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "Please tell Zbrvenka Tolquist about it."
    asked: list[Network] = []
    monkeypatch.setattr(Network, "_overflows", lambda network: not asked.append(network))
    careful = NameModel()
    assert len(asked) == 1
    assert np.abs(careful.piece_probabilities(text) - name_model().piece_probabilities(text)).max() < 1e-3
