"""Tokenizers, chat templates and ends of turn as people have them: the ids and prompts that
transformers makes of them, in the reference and in every engine, or a true reason.

The ordinary run takes one checkpoint with many of them at once through the engines;
QWEN_PACK_FIELD=all takes every one (`make field`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from packager.chat import speech
from packager.checkpoint import Checkpoint
from packager.checkpoint.retrieval import conventions
from packager.errors import ExitCode, PackError
from packager.quality.parity import _AROUND, _overlaps
from packager.quality.parity_corpus import CONVERSATIONS, DECOMPOSED, TEXTS
from packager.quality.reference_tokenizer import reference_tokenizer
from tests.conftest import REPOSITORY
from tests.support.field_speech import (
    BY_SOME,
    END_OF_TEXT,
    END_OF_TURN,
    NOTED,
    PADDING,
    REFUSED,
    SAME,
    TRUNCATION,
    Case,
    Spoken,
)
from tests.support.retrieval import edit, end_id, write_embedder
from tests.test_openvino_engine import finish

ALL = os.environ.get("QWEN_PACK_FIELD") == "all"
RECIPES = {"llama.cpp": "Q8_0", "openvino": "int8_sym", "onnxruntime": "int8_sym_b32"}
TAKEN: dict[str, Case] = SAME | {
    name: case for table in (BY_SOME, NOTED) for name, (case, _) in table.items()
}
SHOWN = ("as a trainer left it",)
UNASKED = range(2041, 2044)
"""Ids of files in a repository, at which llama.cpp stops unasked."""
ENDS: Mapping[str, set[int]] = {
    "an end of one's own": {END_OF_TURN, 2048},
    "a tool call ends the turn": {END_OF_TURN, END_OF_TEXT, 2037},
    "a base model's end": {END_OF_TURN, END_OF_TEXT},
    "as a trainer left it": {END_OF_TURN, END_OF_TEXT},
}


def saved(case: Case, folder: Path) -> Path:
    spoken = Spoken()
    case(spoken)
    return spoken.save(folder)


@pytest.mark.engine
def test_the_reference_gives_the_ids_and_prompts_that_transformers_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    wrong: dict[str, Any] = {}
    for number, (name, case) in enumerate(TAKEN.items()):
        if name in NOTED:
            continue
        folder = saved(case, tmp_path / str(number))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        ours = reference_tokenizer(Checkpoint.open(folder))
        added = [token.content for _, token in sorted(theirs.added_tokens_decoder.items())]
        texts = [
            *TEXTS,
            DECOMPOSED,
            *(f"{before}{text}{behind}" for text in added for before, behind in _AROUND),
            *(first + second for first, second in pairwise(added)),
            *_overlaps(added),
        ]
        for text in texts:
            ids = theirs.encode(text, add_special_tokens=False)
            if ours.encode(text, add_special_tokens=False).ids != ids:
                wrong[name, text] = ids
        if theirs.chat_template is None:
            assert speech.of_folder(folder).template is None
            continue
        own = speech.own_templates(folder)
        for which, conversation in CONVERSATIONS.items():
            given = {"add_generation_prompt": True, **conversation}
            wanted = theirs.apply_chat_template(given.pop("messages"), tokenize=False, **given)
            if own.render(conversation) != wanted:
                wrong[name, which] = wanted
    assert wrong == {}


@pytest.mark.engine
@pytest.mark.parametrize("engine", RECIPES)
def test_every_engine_gives_the_same_or_says_what_it_does_otherwise(
    engine: str, tmp_path: Path
) -> None:
    names = list(TAKEN) if ALL else list(SHOWN)
    folders = [saved(TAKEN[name], tmp_path / name.replace(" ", "_")) for name in names]
    found = finish(
        "tests.support.speech_jobs:build_and_check",
        tmp_path / "log",
        engine=engine,
        weights=RECIPES[engine],
        checkpoints={str(folder): {} for folder in folders},
    )[0].value
    wrong: dict[str, Any] = {}
    for name, folder in zip(names, folders, strict=True):
        result = found[folder.name]
        told = " ".join([result.get("refused", ""), *result.get("findings", ())])
        expected = BY_SOME[name][1].get(engine) if name in BY_SOME else None
        if expected is not None:
            if expected not in told:
                wrong[name] = result
        elif told.strip() or not ends_at(name, result["ends"]):
            wrong[name] = result
    assert wrong == {}


def ends_at(name: str, found: list[int]) -> bool:
    """Whether an artifact stops where the case says, and else only where engines stop unasked."""
    wanted = ENDS.get(name, {END_OF_TURN})
    return wanted <= {*found} <= wanted | {*UNASKED, END_OF_TURN, END_OF_TEXT}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_disagree_are_refused_with_the_true_reason(name: str, tmp_path: Path) -> None:
    case, said = REFUSED[name]
    with pytest.raises(PackError) as refused:
        speech.of_folder(Checkpoint.open(saved(case, tmp_path / "checkpoint")).folder)
    assert said in str(refused.value)
    assert refused.value.exit_code == ExitCode.INPUT and refused.value.hint


@pytest.mark.parametrize("name", NOTED)
def test_what_transformers_reads_otherwise_is_said(name: str, tmp_path: Path) -> None:
    case, said = NOTED[name]
    [note] = Checkpoint.open(saved(case, tmp_path / "checkpoint")).notes
    assert said in note


@pytest.mark.engine
def test_what_a_training_run_cut_and_padded_with_is_no_end_of_an_embedders_text(
    tmp_path: Path,
) -> None:
    folder = write_embedder(tmp_path / "checkpoint")
    edit(folder / "tokenizer.json", padding=PADDING, truncation=TRUNCATION)
    assert conventions(Checkpoint.open(folder)).end == end_id(folder)


def test_the_log_names_every_case() -> None:
    log = (REPOSITORY / "docs" / "field.md").read_text("utf-8")
    assert [name for name in (*TAKEN, *REFUSED) if f"`{name}`" not in log] == []
