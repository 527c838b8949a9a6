"""Checkpoints as people have them: what is opened, under which names, and what engines that read
folders are given."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.checkpoint.rewrite import for_every_engine
from packager.errors import PackError
from packager.reference import Reference
from targets import registry
from tests.support.field_cases import BASE, EMBEDDING, OUTPUT, TAKEN
from tests.support.make_checkpoint import Silent
from tests.support.yardstick import divergence, grid, of_transformers, safetensors, write
from tests.test_field import ALL, ENGINES, field_of

TOWER = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 32,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
"""A vision tower's sizes."""


class TestWhatIsOpened:
    def opened(self, name: str, tmp_path: Path) -> Checkpoint:
        return Checkpoint.open(field_of(name).save(tmp_path / "checkpoint"))

    def test_an_output_matrix_of_its_own_unties_the_shape_and_counts_in_every_footprint(
        self, tmp_path: Path
    ) -> None:
        tied, untied = Checkpoint.open(BASE), self.opened("tied, yet different", tmp_path)
        assert (
            tied.shape.tied
            and not untied.shape.tied
            and untied.config["tie_word_embeddings"] is False
        )
        assert (
            OUTPUT in untied.tensors
            and untied.dropped == ()
            and "output matrix differs" in untied.notes[0]
        )
        assert (
            untied.shape.parameters() - tied.shape.parameters()
            == tied.shape.vocab * tied.shape.hidden
        )
        for name, engine in ENGINES.items():
            adapter = registry.runtime(name)
            recipe = adapter.recipe(*engine)
            assert adapter.artifact_bytes(untied.shape, recipe) > adapter.artifact_bytes(
                tied.shape, recipe
            )
            assert (
                adapter.footprint(untied.shape, recipe, 512).total
                >= adapter.footprint(tied.shape, recipe, 512).total
            )

    @pytest.mark.parametrize(
        "name",
        ["tied, stored again", "tied, stored again in 32 bits", "index misses the tied copy"],
    )
    def test_a_copy_of_the_embedding_is_dropped(self, name: str, tmp_path: Path) -> None:
        opened = self.opened(name, tmp_path)
        assert (
            opened.shape.tied
            and opened.dropped == (OUTPUT,)
            and opened.notes == ()
            and opened.as_published
        )

    def test_a_head_alone_is_the_embedding(self, tmp_path: Path) -> None:
        opened = self.opened("tied, head alone", tmp_path)
        assert (
            opened.shape.tied
            and EMBEDDING in opened.tensors
            and opened.tensors[EMBEDDING].name == OUTPUT
        )

    def test_what_is_left_aside_is_said(self, tmp_path: Path) -> None:
        assert "bitsandbytes" in self.opened("stale quantization_config", tmp_path / "a").notes[0]
        assert (
            "v_head.summary.weight" in self.opened("a value head beside", tmp_path / "b").notes[0]
        )
        assert self.opened("inverse frequencies", tmp_path / "c").notes == ()

    @pytest.mark.parametrize("name", [name for name in TAKEN if name not in ("as it is",)])
    def test_an_engine_that_reads_folders_is_given_the_same_network_under_official_names(
        self, name: str, tmp_path: Path
    ) -> None:
        opened = self.opened(name, tmp_path)
        given = for_every_engine(Silent(), opened, tmp_path / "given")
        assert (
            given.as_published
            and set(given.tensors) == set(opened.tensors)
            and given.shape == opened.shape
        )
        assert all((given.array(each) == opened.array(each)).all() for each in opened.tensors)


@pytest.mark.engine
def test_names_are_taken_where_transformers_misses_nothing_and_refused_where_it_does(
    tmp_path: Path,
) -> None:
    """Every way to begin a name, for every kind of decoder."""
    begins = (
        "model.language_model.",
        "model.",
        "language_model.",
        "",
        "model.model.",
        "language_model.model.",
        "_orig_mod.model.",
    )
    wrong = []
    for generation in ("qwen2", "qwen3_moe", "qwen3_5_text", "qwen3_5", "qwen3_5_moe"):
        case = next(case for case in grid() if case.generation == generation and case.tie == "tied")
        official = "model.language_model." if "qwen3_5" in generation else "model."
        weights = {
            name: values for name, values in case.weights().items() if name.startswith(official)
        }
        for number, begin in enumerate(begins):
            place = case.write(tmp_path / f"{generation}{number}")
            renamed = {
                begin + name.removeprefix(official): values for name, values in weights.items()
            }
            (place / "model.safetensors").write_bytes(safetensors(renamed))
            taken = loads(place)
            try:
                Checkpoint.open(place)
                ours = True
            except PackError:
                ours = False
            if ours != taken:
                wrong.append(
                    (
                        generation,
                        begin,
                        "transformers takes it" if taken else "transformers does not take it",
                    )
                )
    assert wrong == []


@pytest.mark.engine
def test_two_tables_that_disagree_about_the_tie_are_read_as_transformers_reads_them(
    tmp_path: Path,
) -> None:
    """A composite says it twice; every stored output matrix counts as what it is."""
    case = next(
        case for case in grid() if (case.generation, case.tie) == ("qwen3_5", "tied, yet different")
    )
    plain = case.weights()
    other = plain.pop(OUTPUT)
    same = next(values for name, values in plain.items() if "embed_tokens" in name)
    heads = {"none": {}, "same": {OUTPUT: same}, "other": {OUTPUT: other}}
    flags = (None, False, True)
    points = list(itertools.product(heads, flags, flags))
    if not ALL:
        points = [("none", False, True), ("none", True, False), ("none", None, None)]
        points += [("other", True, True), ("same", False, True)]
    wrong = []
    for number, (head, outer, inner) in enumerate(points):
        config = case.config()
        for table, flag in ((config, outer), (config["text_config"], inner)):
            table.pop("tie_word_embeddings", None)
            table.update({} if flag is None else {"tie_word_embeddings": flag})
        place = write(tmp_path / str(number), config, plain | heads[head])
        try:
            shape = Checkpoint.open(place).shape
        except PackError as refused:
            taken = OUTPUT not in refused.message
        else:
            taken = head == "same" or shape.tied == (head == "none")
        if taken != loads(place):
            wrong.append((head, outer, inner))
    assert wrong == []


@pytest.mark.engine
def test_experts_are_taken_one_by_one_and_in_one_tensor_whatever_the_official_files_do(
    tmp_path: Path,
) -> None:
    """Checkpoints that were saved again have either layout; all say the same."""
    for generation in ("qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_moe_text"):
        case = next(
            case
            for case in grid()
            if case.generation == generation and case.tie == "untied" and case.dtype == "F32"
        )
        weights, ids = case.weights(), case.ids()[:1]
        given = case.write(tmp_path / generation)
        expected = Reference.compute(Checkpoint.open(given), ids, Silent()).logits(0)
        other = {**weights}
        for layer in range(case.shape.layers):
            start = (
                next(
                    name for name in weights if f"layers.{layer}.mlp.gate.weight" in name
                ).removesuffix("gate.weight")
                + "experts."
            )
            if f"{start}gate_up_proj" in weights:
                both, down = other.pop(f"{start}gate_up_proj"), other.pop(f"{start}down_proj")
                for number, (pair, last) in enumerate(zip(both, down, strict=True)):
                    gate, up = np.split(pair, 2)
                    other |= {
                        f"{start}{number}.{part}_proj.weight": part_of
                        for part, part_of in (("gate", gate), ("up", up), ("down", last))
                    }
            else:
                single = [
                    [
                        other.pop(f"{start}{number}.{part}_proj.weight")
                        for part in ("gate", "up", "down")
                    ]
                    for number in range(4)
                ]
                other[f"{start}gate_up_proj"] = np.stack(
                    [np.concatenate([gate, up]) for gate, up, _ in single]
                )
                other[f"{start}down_proj"] = np.stack([down for _, _, down in single])
        again = write(tmp_path / f"{generation}-again", case.config(), other)
        assert set(other) != set(weights)
        assert (
            np.abs(
                Reference.compute(Checkpoint.open(again), ids, Silent()).logits(0) - expected
            ).max()
            < 1e-5
        )
        if "qwen3_5" not in generation:
            assert divergence(of_transformers(again, ids)[0], expected) < 1e-9


def loads(checkpoint: Path) -> bool:
    """Whether transformers finds every weight of the text decoder, as a text model or as the whole
    of which it is a part."""
    import transformers

    missing = []
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        config = transformers.AutoConfig.from_pretrained(checkpoint)
        for key, value in TOWER.items():
            # A tower of the usual size takes seconds to be made, and nobody looks at it.
            if hasattr(config, "vision_config"):
                setattr(config.vision_config, key, value)
        try:
            _, loading = auto.from_pretrained(checkpoint, config=config, output_loading_info=True)
        except ValueError:
            # The text models are not among those that see.
            continue
        missing.append([name for name in loading["missing_keys"] if "visual" not in name])
    return [] in missing
