"""A GGUF that somebody else wrote: told apart, refused in a sentence, or taken as it is."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.errors import ExitCode, PackError
from packager.inspection.gguf_header import read
from packager.plan.adopted import Adopted
from packager.plan.adoption import recognise
from targets.gguf import given_shape
from targets.gguf.arch import MODEL_TYPES
from targets.gguf.given import read_given
from targets.gguf.given_shape import ARCHITECTURES, shape_of
from tests.conftest import REPOSITORY
from tests.support.building import command
from tests.support.gguf_checkpoints import OTHERS, SHAPES, build, checkpoint
from tests.support.given_gguf import described, model_at, quantized, with_keys
from tests.support.make_checkpoint import tiny_shape
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

MODEL = REPOSITORY / "tests" / "models" / "tiny-qwen3"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model in 16 bits."""
    return build(MODEL, tmp_path_factory.mktemp("given") / "trained-F16.gguf", "F16")


def test_every_model_type_that_is_written_is_read_again() -> None:
    # The decoder of one that hears or speaks is written as that of one that sees, or of plain text.
    read_again = {kind for kinds in ARCHITECTURES.values() for kind in kinds}
    read_again |= {"qwen2_5_omni", "qwen2_audio", "qwen3_asr"}
    assert read_again == set(MODEL_TYPES)


@pytest.mark.parametrize("name", [*SHAPES, *OTHERS])
def test_the_shape_of_every_architecture_is_read_back(name: str, tmp_path: Path) -> None:
    shape = {**SHAPES, **OTHERS}[name]
    path = build(checkpoint(tmp_path / "ck", shape), tmp_path / "m.gguf", "F16")
    back = shape_of(read_given(path))
    assert back.model_type == ARCHITECTURES[str(read(path).text("general.architecture"))][0]
    assert replace(back, model_type=shape.model_type) == shape


@pytest.mark.parametrize("preset", ["Q4_K_M", "Q8_0", "IQ4_XS"])
def test_what_llama_cpp_quantized_is_recognised_by_its_types(preset: str, tmp_path: Path) -> None:
    plain = build(checkpoint(tmp_path / "ck", SHAPES["qwen3"]), tmp_path / "plain.gguf", "F16")
    # Whatever the file says of itself.
    other = with_keys(
        quantized(plain, tmp_path / "q.gguf", preset), tmp_path / "o.gguf", general__file_type=0
    )
    model = model_at(other)
    assert model.recipe.id == f"gguf:{preset}"
    assert model.recipe.grade == f"{8 if preset == 'Q8_0' else 4}-bit"
    assert "importance" not in model.says
    assert model.runtime.artifact_bytes(model.shape, model.recipe) == other.stat().st_size


def test_an_importance_matrix_is_recorded_as_the_file_states_it(tmp_path: Path) -> None:
    plain = build(checkpoint(tmp_path / "ck", SHAPES["qwen2"]), tmp_path / "plain.gguf", "F16")
    random = np.random.default_rng(3)
    weights = {
        name: random.uniform(0.1, 4, tensor.shape[-1])
        for name, tensor in read_given(plain).tensors.items()
        if len(tensor.shape) > 1 and name != "token_embd.weight"
    }
    path = quantized(plain, tmp_path / "q.gguf", "IQ4_XS", weights, recorded="/home/me/imatrix.dat")
    model = model_at(path)
    assert model.recipe.id == "gguf:IQ4_XS/imatrix"
    assert model.says["importance"] == {"file": "imatrix.dat", "chunks": 7}


def test_what_a_file_says_of_itself_does_nothing_to_a_terminal(
    trained: Path, tmp_path: Path
) -> None:
    path = with_keys(
        trained,
        tmp_path / "x.gguf",
        general__name="\x1b[31mred\nline" + "x" * 500,
        quantize__imatrix__dataset="/home/me/\x1b]0;title\x07",
    )
    says = model_at(path).says
    told = [str(says["name"]), str(says["importance"])]
    assert all(text.isprintable() and len(text) < 300 for text in told), told
    assert "/home/me" not in told[1]


def test_types_that_no_preset_gives_are_a_mixture_of_its_own(tmp_path: Path) -> None:
    ck = checkpoint(tmp_path / "ck", SHAPES["qwen3"])
    path = build(ck, tmp_path / "m.gguf", "Q4_K_M", overrides={"blk.0.attn_v": "Q8_0"})
    model = model_at(path)
    assert model.recipe.id == "gguf:mixed"
    assert "1 Q8_0" in model.recipe.summary
    assert model.recipe.grade in ("4-bit", "5-bit", "6-bit")


def test_several_files_are_one_model(trained: Path, tmp_path: Path) -> None:
    build(MODEL, tmp_path / "m.gguf", "F16", max_file_bytes=3_000_000)
    shards = sorted(tmp_path.glob("m-*.gguf"))
    assert len(shards) > 1
    quantized(shards[0], tmp_path / "q", "Q8_0", keep_split=True)
    parts = sorted(tmp_path.glob("q-*.gguf"))
    assert len(parts) == len(shards)
    model = model_at(parts[0])
    assert (model.name, model.recipe.id, len(model.files)) == ("q", "gguf:Q8_0", len(parts))
    assert model.shape == model_at(trained).shape
    with pytest.raises(PackError, match=r"not the first file.*Name q-00001-of") as caught:
        model_at(parts[1])
    assert caught.value.exit_code == ExitCode.USAGE
    for path in shards:
        path.unlink()
    assert model_at(tmp_path).name == "q"
    parts[1].unlink()
    with pytest.raises(PackError, match="is missing, which") as caught:
        model_at(parts[0])
    assert caught.value.exit_code == ExitCode.INPUT


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("not one of Qwen's", {"general__architecture": "llama"}),
    ("a vision tower, not a language model", {"general__architecture": "clip"}),
    ("does not hold the decoder that its keys describe", {"qwen3__block_count": 5}),
    ("whole number belongs", {"qwen3__block_count": 1 << 30}),
    ("'blk.0.attn_k.weight' as", {"qwen3__attention__head_count_kv": 1}),
    ("kind 'llama', which is not Qwen's", {"tokenizer__ggml__model": "llama"}),
    ("splits text as 'llama-bpe'", {"tokenizer__ggml__pre": "llama-bpe"}),
    ("splits text as 'default'", {"tokenizer__ggml__pre": None}),
    ("which is an ordinary word", {"tokenizer__ggml__eos_token_id": 65}),
    ("as the id of eos", {"tokenizer__ggml__eos_token_id": 1 << 30}),
    (
        r"writes '<\|eot_id\|>', which is not a token",
        {"tokenizer__chat_template": CHATML.replace("im_end", "eot_id")},
    ),
    (
        r"ends a turn with '<\|im_start\|>', and the model stops at '<\|endoftext\|>', '<\|im_end\|>'",
        {"tokenizer__chat_template": CHATML.replace("im_end", "im_start")},
    ),
    ("cannot be rendered", {"tokenizer__chat_template": "{% for m in messages %}"}),
    (
        "cannot be rendered",
        {"tokenizer__chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
    ),
    ("scales its positions by 'longrope'", {"qwen3__rope__scaling__type": "longrope"}),
]


@pytest.mark.parametrize(("words", "changes"), WRONG, ids=[words for words, _ in WRONG])
def test_a_file_that_is_not_what_it_says_is_refused_in_one_sentence(
    words: str, changes: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    path = with_keys(trained, tmp_path / "wrong.gguf", **changes)
    with pytest.raises(PackError, match=words) as caught:
        described(path, tmp_path / "out")
    assert caught.value.exit_code == ExitCode.INPUT
    # What Jinja itself says of a template may be several.
    assert words == "cannot be rendered" or ". " not in caught.value.message


def test_a_file_that_makes_vectors_or_scores_is_no_text_generator(
    trained: Path, tmp_path: Path
) -> None:
    for pooling in (gguf.PoolingType.LAST, gguf.PoolingType.RANK):
        path = with_keys(trained, tmp_path / "pooled.gguf", qwen3__pooling_type=int(pooling))
        with pytest.raises(PackError, match="vectors or scores and no text") as caught:
            described(path, tmp_path / "out")
        assert caught.value.exit_code == ExitCode.USAGE
        path.unlink()
    path = with_keys(trained, tmp_path / "plain.gguf", qwen3__pooling_type=0)
    assert described(path, tmp_path / "out")["template"] is True


def test_a_hostile_header_is_refused_before_anything_is_made_of_it(
    trained: Path, tmp_path: Path
) -> None:
    data = trained.read_bytes()
    hostile = {
        "claims": struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 1) + bytes(64),
        "ends within|outside of its data": data[: len(data) // 2],
        "is not a GGUF file": b"GGML" + data[4:],
        "unknown type": tiny_gguf(bytes(32), kind=99),
        "is empty": b"",
    }
    for words, content in hostile.items():
        path = tmp_path / "h.gguf"
        path.write_bytes(content)
        with pytest.raises(PackError, match=words) as caught:
            model_at(path)
        assert caught.value.exit_code == ExitCode.INPUT


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_whatever_one_byte_of_a_header_becomes_it_is_read_or_refused(
    place: int, byte: int, tmp_path: Path
) -> None:
    keys = b"".join(
        (
            struct.pack("<Q", 3) + b"k%02d" % number + struct.pack("<I", kind) + value
            for number, (kind, value) in enumerate(
                [
                    (8, struct.pack("<Q", 2) + b"hi"),
                    (4, struct.pack("<I", 7)),
                    (9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 1) + b"x"),
                    (9, struct.pack("<IQ", 5, 2) + struct.pack("<2i", 1, 2)),
                ]
            )
        )
    )
    data = bytearray(tiny_gguf(bytes(64), keys=keys, pairs=4))
    data[place % len(data)] = byte
    path = tmp_path / "f.gguf"
    path.write_bytes(bytes(data))
    try:
        header = read(path)
    except PackError as error:
        assert error.exit_code == ExitCode.INPUT
    else:
        assert all(tensor.offset + tensor.nbytes <= len(data) for tensor in header.tensors)


def test_a_folder_with_two_models_and_a_file_of_another_kind_are_usage(
    trained: Path, tmp_path: Path
) -> None:
    for name in ("a.gguf", "b.gguf", "c.bin"):
        (tmp_path / name).write_bytes(trained.read_bytes()[:64])
    for place, words in ((tmp_path, "holds 2 models"), (tmp_path / "c.bin", "no runtime takes")):
        with pytest.raises(PackError, match=words) as caught:
            model_at(place)
        assert caught.value.exit_code == ExitCode.USAGE


def small(model: Adopted, **says: Any) -> Adopted:
    """The model as if it had the shape of Qwen3-0.6B."""
    shape = replace(
        tiny_shape("qwen3"),
        hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, intermediate=3072,
        vocab=151_936, tied=True, qkv_bias=False, qk_norm=True,
    )  # fmt: skip
    return replace(model, shape=shape, says=says)


def test_how_a_variant_was_recognised_is_said_and_never_more_than_is_known(trained: Path) -> None:
    model = model_at(trained)
    assert recognise(model).variant.repo_id == "local/trained"
    rows: list[tuple[dict[str, Any], str, str]] = [
        ({"repo": "Qwen/Qwen3-0.6B"}, "Qwen/Qwen3-0.6B", "name"),
        ({"name": "Qwen3 0.6B"}, "Qwen/Qwen3-0.6B", "name"),
        # A fine-tune says what it was tuned from: it is not that.
        ({"name": "Mine", "base_models": ["Qwen/Qwen3-0.6B"]}, "local/trained", "nothing"),
        ({"name": "Qwen3 0.6B Base"}, "Qwen/Qwen3-0.6B-Base", "name"),
    ]
    for says, repo_id, by in rows:
        known = recognise(small(model, **says))
        assert (known.variant.repo_id, known.by) == (repo_id, by), says
        assert "Qwen/Qwen3-0.6B" in known.alike
    assert recognise(small(model), "Qwen3-0.6B").by == "user"
    with pytest.raises(PackError, match=r"is not Qwen/Qwen3-1.7B: its hidden is") as caught:
        recognise(model, "Qwen3-1.7B")
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.fixture(scope="module")
def packaged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package of a quantized file, held against its checkpoint, and the cache."""
    folder = tmp_path_factory.mktemp("adopted")
    path = quantized(trained, folder / "tiny-Q8_0.gguf", "Q8_0")
    run = command(
        *("adopt", str(path), "--target", "laptop-cpu", "--context", "256"),
        *("--against", str(MODEL), "--out", str(folder / "package")),
        cache=folder / "cache",
    )
    assert run.returncode == 0, run.stderr
    assert "taken as it is" in run.stderr
    return folder / "package", folder / "cache"


def test_the_package_is_the_file_and_says_so(packaged: tuple[Path, Path], trained: Path) -> None:
    package, cache = packaged
    manifest = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    source, row = manifest["source"], manifest["files"][0]
    assert (source["kind"], source["location"]) == ("gguf", "tiny-Q8_0.gguf")
    assert source["files"][0]["sha256"] == row["sha256"]
    assert row["path"] == "model/model.gguf"
    assert source["adopted"]["by"] == "nothing"
    assert source["adopted"]["against"]["location"] == "tiny-qwen3"
    assert manifest["recipe"]["id"] == "gguf:Q8_0"
    assert manifest["variant"]["revision"] is None
    assert manifest["quality"]["kl_mean"] < 0.01
    assert "by somebody else" in (package / "NOTICE").read_text(encoding="utf-8")
    assert "cannot be built again" in (package / "MODEL_CARD.md").read_text(encoding="utf-8")
    provenance = json.loads((package / "provenance.intoto.json").read_text(encoding="utf-8"))
    named = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert named[0]["name"] == "adopted/tiny-Q8_0.gguf"
    assert command("verify", str(package), cache=cache).returncode == ExitCode.DONE
    again = command("verify", str(package), "--rebuild", cache=cache)
    assert again.returncode == ExitCode.USAGE
    assert "cannot be built again" in again.stderr
    out = package.parent / "exported"
    exported = command(
        *("export", str(package), "--format", "dir", "--out", str(out)),
        *("--accept-license", "unstated"),
        cache=cache,
    )
    assert exported.returncode == ExitCode.DONE, exported.stderr


def test_a_template_that_is_not_the_tokenizers_stops_the_build(
    packaged: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    other = CHATML.replace("{{ m.role }}\n", "{{ m.role }}: ")
    path = with_keys(trained, tmp_path / "other.gguf", tokenizer__chat_template=other)
    run = command(
        *("build", "--target", "laptop-cpu", "--context", "256", "--weights", str(path)),
        *("--tokenizer", str(MODEL), "--out", str(tmp_path / "package")),
        cache=packaged[1],
    )
    assert run.returncode == ExitCode.BUDGET
    assert "The chat template writes" in run.stderr
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "gguf:Q4_0"], "is gguf:F16, not gguf:Q4_0"),
        (["--lora", "."], "--lora goes into a conversion"),
        (["--use-case", "embed"], "taken as a text generator"),
        (["--revision", "main"], "nothing comes from there"),
        (["--tokenizer", "nowhere"], "is not a folder"),
        (["--model", "Qwen3-0.6B"], "is not Qwen/Qwen3-0.6B"),
        (["--runtime", "all"], "in one runtime"),
        (["--sampling", "temperature=0.5"], "with its own chats"),
    ],
)
def test_what_only_a_conversion_takes_is_refused(
    flags: list[str], words: str, trained: Path, tmp_path: Path
) -> None:
    run = command(
        *("build", "--target", "laptop-cpu", "--weights", str(trained), "--context", "256"),
        *flags,
        cache=tmp_path / "cache",
    )
    assert run.returncode in (ExitCode.USAGE, ExitCode.INPUT)
    assert words in run.stderr


def test_against_is_for_a_model_that_was_converted(tmp_path: Path) -> None:
    run = command(
        *("build", "--target", "laptop-cpu", "--weights", str(MODEL), "--against", str(MODEL)),
        cache=tmp_path / "cache",
    )
    assert run.returncode == ExitCode.USAGE
    assert "--against is for a model that was converted already" in run.stderr


def test_a_model_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from packager.cli import main

    nowhere = str(tmp_path / "nowhere.gguf")
    for words in (["adopt", nowhere], ["attest", nowhere, "--against", str(tmp_path)]):
        assert main(words) == ExitCode.USAGE
        assert f"There is no file or folder '{nowhere}'." in capsys.readouterr().err


def test_adopt_alone_says_what_it_is_and_writes_nothing(trained: Path, tmp_path: Path) -> None:
    run = command("adopt", str(trained), "--json", cache=tmp_path / "cache")
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["schema"] == "qwen-pack/adopt/1"
    assert (said["architecture"], said["recipe"], said["ends"]) == (
        "qwen3",
        "gguf:F16",
        ["<|im_end|>"],
    )
    assert not (tmp_path / "cache" / "stages").exists()


def test_the_yarn_of_a_file_is_that_of_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    path = with_keys(
        trained,
        tmp_path / "y.gguf",
        qwen3__rope__scaling__type="yarn",
        qwen3__rope__scaling__factor=4.0,
        qwen3__rope__scaling__original_context_length=512,
    )
    assert given_shape.rope_scaling(read_given(path)) == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    described(path, tmp_path / "out")
