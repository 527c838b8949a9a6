"""The llama.cpp adapter: recipes, obstacles, sizes that are exact without an engine, the commands
in a package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.predict.memory import kv_cache_bytes
from packager.runtime import Runtime
from packager.shipping.apps.ollama_template import OllamaChat, translated
from targets.gguf import sizes, tensor_types
from targets.gguf.presets import PRESETS
from targets.llama_cpp import LlamaCpp
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import AWKWARD, SHAPES, build, checkpoint
from tests.support.shipping_packages import CHATML
from tests.support.tiers import thorough

pytestmark = pytest.mark.engine

RUNTIME = LlamaCpp()


def test_it_follows_the_contract() -> None:
    assert isinstance(RUNTIME, Runtime)


def test_asking_for_sizes_imports_no_engine_and_no_numpy() -> None:
    program = (
        "import sys; from targets.llama_cpp import LlamaCpp; from packager import catalog; r = "
        "LlamaCpp();"
        "s = catalog.find('Qwen3-30B-A3B').shape;"
        "[(r.artifact_bytes(s, x), r.footprint(s, x, 4096), r.decode_bytes(s, x, 4096)) for x in "
        "r.recipes()];"
        "print([name for name in ('numpy', 'gguf', 'llama_cpp') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_recipes_stand_best_first_and_those_that_need_importances_say_so() -> None:
    names = [recipe.weights for recipe in RUNTIME.recipes()]
    assert names == list(PRESETS)
    refused = [
        recipe.weights
        for recipe in RUNTIME.recipes()
        if RUNTIME.obstacle(SHAPES["qwen2"], recipe) is not None
    ]
    assert refused == [preset.name for preset in PRESETS.values() if preset.imatrix]
    assert {"F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_S", "Q2_K"} <= set(
        names
    )


def test_better_recipes_are_larger() -> None:
    shape = catalog.find("Qwen3-8B").shape
    assert shape is not None
    found = [
        RUNTIME.artifact_bytes(shape, RUNTIME.recipe(name))
        for name in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
    ]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("weights", "kv", "nearest"), [("Q4_KM", None, "Q4_K_M"), ("Q4_K_M", "q8", "q8_0")]
)
def test_an_unknown_name_is_refused_with_the_nearest(
    weights: str, kv: str | None, nearest: str
) -> None:
    with pytest.raises(PackError, match=f"Did you mean .*'{nearest}'") as caught:
        RUNTIME.recipe(weights, kv)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_quantized_cache_halves_the_footprint_of_the_cache() -> None:
    shape = catalog.find("Qwen3-0.6B").shape
    assert shape is not None
    plain = RUNTIME.footprint(shape, RUNTIME.recipe("Q4_K_M"), 4096)
    small = RUNTIME.footprint(shape, RUNTIME.recipe("Q4_K_M", "q8_0"), 4096)
    assert plain.kv_cache == kv_cache_bytes(shape, 4096, 16)
    assert small.kv_cache == plain.kv_cache * 8.5 / 16
    assert RUNTIME.recipe("Q4_K_M", "q8_0").id == "gguf:Q4_K_M/kv_q8_0"


def test_one_token_of_a_mixture_reads_the_active_experts_alone() -> None:
    shape = catalog.find("Qwen3-30B-A3B").shape
    assert shape is not None
    recipe = RUNTIME.recipe("Q8_0")
    # 3.3 of 30.5 billion parameters are active, the untied embedding is read by the row.
    assert RUNTIME.decode_bytes(shape, recipe, 0) == pytest.approx(3.04e9 * 34 / 32, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "recipe", "words"),
    [
        (SHAPES["qwen2"], "IQ2_XS", "importance matrix"),
        (catalog.find("Qwen3-Omni-30B-A3B-Instruct").shape, "Q4_K_M", "text decoders"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(shape: object, recipe: str, words: str) -> None:
    found = RUNTIME.obstacle(shape, RUNTIME.recipe(recipe))  # type: ignore[arg-type]
    assert found is not None
    assert words in found
    assert RUNTIME.obstacle(SHAPES["qwen2"], RUNTIME.recipe("Q4_K_M")) is None


def test_the_table_holds_every_text_variant_of_the_catalogue_in_every_preset() -> None:
    stored = json.loads(sizes.TABLE.read_text())
    assert stored["presets"] == sizes.COLUMNS
    for variant in catalog.load():
        if variant.shape and RUNTIME.obstacle(variant.shape, RUNTIME.recipe("Q4_K_M")) is None:
            shapes = list(sizes.shapes_of(variant))
            assert shapes, variant.repo_id
            assert all(sizes.key(shape) in stored["shapes"] for shape in shapes), variant.repo_id


@pytest.mark.engine
@pytest.mark.parametrize(
    "name", ["Qwen2.5-0.5B-Instruct", thorough("Qwen3-4B"), thorough("Qwen1.5-MoE-A2.7B")]
)
def test_the_table_says_what_the_library_says(name: str) -> None:
    shape = catalog.find(name).shape
    assert shape is not None
    for preset in PRESETS.values():
        assert sizes.of(shape, preset) == sizes.ask(shape, preset), preset.name


@pytest.mark.engine
def test_the_table_says_what_the_library_says_of_a_model_with_its_heads() -> None:
    shape = list(sizes.shapes_of(catalog.find("Qwen3.5-0.8B")))[-1]
    assert shape.draft_layers
    found = sizes.of(shape, PRESETS["Q4_K_M"])
    assert found == sizes.ask(shape, PRESETS["Q4_K_M"]) and found.heads


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "preset"),
    [
        (name, preset) if preset == "Q4_K_M" or name == "awkward" else thorough(name, preset)
        for name in (*SHAPES, "awkward")
        for preset in ("BF16", "Q8_0", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q2_K")
    ],
)
def test_predicted_weights_are_those_of_the_file_to_the_byte(
    name: str, preset: str, tmp_path: Path
) -> None:
    import gguf

    shape = AWKWARD if name == "awkward" else SHAPES[name]
    path = build(checkpoint(tmp_path / "ck", shape), tmp_path / "m.gguf", preset)
    reader = gguf.GGUFReader(path)
    assert path.stat().st_size - reader.data_offset == sizes.of(shape, PRESETS[preset]).data


@pytest.mark.engine
@pytest.mark.parametrize("name", ["Qwen2.5-0.5B-Instruct", "Qwen1.5-MoE-A2.7B", "Qwen3.5-0.8B"])
def test_types_of_single_tensors_change_the_sizes_as_the_library_says(name: str) -> None:
    shape = catalog.find(name).shape
    assert shape is not None
    changes = ((("token_embd", "Q8_0"),), ((r"blk\.[01]\.", "F16"), ("attn_(k|qkv)", "Q8_0")))
    for overrides in changes:
        for preset, imatrix in (("Q4_K_M", False), ("Q4_0", True), ("IQ3_XXS", True)):
            asked = sizes.ask(shape, PRESETS[preset], imatrix, overrides)
            assert sizes.of(shape, PRESETS[preset], imatrix, overrides) == asked, preset


@pytest.mark.engine
@pytest.mark.parametrize(
    "overrides",
    [
        (("attn_v", "Q9"),),
        (("attn_v(", "Q8_0"),),
        (("no_such", "Q8_0"),),
        (("ffn_down", "IQ2_XS"),),
        (("attn_v", "Q4_K"),),
    ],
)
def test_types_that_cannot_be_are_refused_in_the_same_words_with_and_without_the_library(
    overrides: tuple[tuple[str, str], ...],
) -> None:
    shape = catalog.find("Qwen2.5-0.5B-Instruct").shape
    assert shape is not None
    said: list[tuple[object, ...] | None] = []
    for of in (sizes.of, sizes.ask):
        try:
            of(shape, PRESETS["Q4_K_M"], False, overrides)
        except PackError as problem:
            said.append((problem.message, problem.hint, problem.exit_code))
        else:
            said.append(None)
    assert said[0] is not None and said[0] == said[1]


def test_every_shape_in_the_table_of_sizes_is_in_the_table_of_types() -> None:
    stored, types = json.loads(sizes.TABLE.read_text()), json.loads(tensor_types.TABLE.read_text())
    assert stored["shapes"].keys() == types["shapes"].keys()
    assert all(list(entry[-1]) == sizes.COLUMNS for entry in types["shapes"].values())


def test_fit_with_types_of_single_tensors_loads_no_engine() -> None:
    words = ["fit", "--target", "cpu-gguf", "--tensor-type", "attn_v=Q8_0", "--json"]
    code = (
        "import sys; from packager.cli import main; code = main(sys.argv[1:]); "
        "print(code, {'numpy', 'gguf', 'llama_cpp'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().endswith("0 set()"), done.stderr
    assert json.loads(done.stdout)["chosen"]["recipe"].startswith("gguf:")


def test_a_shape_outside_the_table_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from targets.gguf import library

    monkeypatch.setattr(library, "installed", lambda: False)
    sizes._asked.cache_clear()
    assert RUNTIME.artifact_bytes(SHAPES["qwen3"], RUNTIME.recipe("Q8_0")) > 0
    with pytest.raises(PackError, match=r"only llama\.cpp knows") as caught:
        RUNTIME.artifact_bytes(SHAPES["qwen3"], RUNTIME.recipe("Q4_K_M"))
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_genuine_vocabulary_takes_the_bytes_that_are_foreseen(
    shared: Path, tmp_path: Path
) -> None:
    import gguf

    from packager.shape import Shape
    from targets.gguf import header, metadata
    from targets.gguf.tokenizer import read_vocabulary

    (tmp_path / "tokenizer.json").write_bytes(
        (shared / "qwen" / "tokenizer_json" / "Qwen3.tokenizer.json").read_bytes()
    )
    found = read_vocabulary(tmp_path, {"vocab_size": 151936}, {})
    writer = gguf.GGUFWriter(None, "qwen3")
    metadata._tokenizer(writer, found, None)
    shape = Shape("qwen3", 64, 1, 1, 1, 64, 64, 151936, True, False, True, 512)
    assert len(header.encode(dict(writer.kv_data[0]), [])) == pytest.approx(
        sizes.vocabulary_bytes(shape), rel=0.005
    )


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_package_says_how_to_run_it_in_four_ways(kv: str) -> None:
    text = RUNTIME.how_to_run(RUNTIME.recipe("Q4_K_M", kv), {"context": 8192})
    for command in (
        "llama-cli --model model/model.gguf --ctx-size 8192",
        "llama-server",
        "ollama create",
        "llama_cpp.Llama(",
    ):
        assert command in text
    assert ("--cache-type-v q8_0" in text) == (kv == "q8_0")
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "README", "exec")


@pytest.mark.parametrize("said", ["You are Qwen.", '```\nEND\n""" $HOME `id`'])
def test_ollama_is_told_the_packages_own_chat_template(said: str, tmp_path: Path) -> None:
    """Its commands are those of a shell, whatever the template says."""
    first = json.dumps(f"<|im_start|>system\n{said}<|im_end|>\n")
    template = "{% if messages[0].role != 'system' %}{{ " + first + " }}{% endif %}" + CHATML
    chat = translated(template)
    assert isinstance(chat, OllamaChat)
    workload = {"context": 8192, "chat_template": template, "gpu_layers": 3}
    text = RUNTIME.how_to_run(RUNTIME.recipe("Q4_K_M", "q8_0"), workload)
    fence, block = re.findall(r"^(`{3,})\n(cat.*?)\n\1$", text, re.DOTALL | re.MULTILINE)[0]
    assert fence not in said
    made, create, run = block.rsplit("\n", 2)
    subprocess.run(["sh", "-c", made], cwd=tmp_path, check=True)
    lines = "FROM ./model/model.gguf\nPARAMETER num_ctx 8192\nPARAMETER num_gpu 3\n"
    assert (tmp_path / "Modelfile").read_text() == f'{lines}TEMPLATE """{chat.template}"""\n'
    assert create.endswith("OLLAMA_KV_CACHE_TYPE=q8_0 ollama create qwen-packed --file Modelfile")
    assert run.endswith("ollama run qwen-packed")


def test_a_template_that_ollama_cannot_be_told_is_named_in_place_of_its_commands() -> None:
    workload = {"context": 8192, "chat_template": "{{ strftime_now('%Y') }}" + CHATML}
    text = RUNTIME.how_to_run(RUNTIME.recipe("Q4_K_M"), workload)
    assert "chat template: it writes the current date. Take llama-server" in text
    assert "ollama create" not in text


@pytest.mark.engine
def test_the_python_of_a_package_runs(tmp_path: Path) -> None:
    build(checkpoint(tmp_path / "ck", SHAPES["qwen3"]), tmp_path / "model" / "model.gguf", "Q8_0")
    code = (
        RUNTIME.how_to_run(RUNTIME.recipe("Q8_0", "q8_0"), {"context": 512})
        .split("```python\n")[1]
        .split("```")[0]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
