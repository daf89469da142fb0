"""The wordings before names are looked for only where their words are: a gate never hides one."""

from __future__ import annotations

from pathlib import Path

import pytest

from privacy.cues import CUES, PLACE_CUE, speaks_of_places
from privacy.features import Features
from training.name_model import development

SPOKEN = """Kind regards, Anna|BestRegards|many thanks Bo|ta, Jo|love, Mum|Yours truly|I'm anna|im anna
THE NAME'S BOND|surname: X|Account Holder = Y|my fiancée, Zoë|OUR LANDLADY Ada|spoke with Ada|on behalf of Ada|Mr. X
frau x|Good evening, Al|dear al|this is bo from|speaking: bo|CC: bo|we're from ely|I am originally from ely
he's from ely|comes from ely|we are in ely|living near ely|resides in ely|grew up in ely|travelling to ely|I'm in ely
relocated here from ely|they call me al"""


@pytest.mark.parametrize("text", [text for line in SPOKEN.splitlines() for text in line.split("|")])
def test_some_cue_is_found_behind_its_gate(text: str) -> None:
    features = Features(f"{text} ")
    found = [cue for cue in CUES if cue.pattern.search(features.text)]
    assert found or PLACE_CUE.search(features.text)


def test_no_gate_hides_a_cue() -> None:
    texts = [item.text for item in (*development.chats(), *development.technical())]
    texts += [line for path in Path("docs").glob("*.md") for line in path.read_text(encoding="utf-8").splitlines()]
    texts += [f"so {text} x" for line in SPOKEN.splitlines() for text in line.split("|")]
    seen = 0
    for text in texts:
        features = Features(text)
        for cue in CUES:
            if cue.pattern.search(text):
                seen += 1
                assert cue.gate(features), text
        if PLACE_CUE.search(text):
            seen += 1
            assert speaks_of_places(features), text
    assert seen > 200
