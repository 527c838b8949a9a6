"""The projector file (mmproj) that one pass writes: tensor for tensor and key for key what
llama.cpp's own converter writes (tests/golden/projectors.json, made by benchmarks/projectors.py)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from packager import catalog
from packager.checkpoint import Checkpoint
from packager.errors import PackError
from targets.gguf import tower
from targets.gguf.convert import convert
from targets.gguf.kernels import row_bytes
from targets.gguf.presets import PRESETS, ROOM, projector_type
from targets.gguf.projector import convert_projector
from tests.support.damage import WEIGHTS
from tests.support.gguf_checkpoints import overwrite
from tests.support.make_checkpoint import Silent
from tests.support.vision import SHAPES, as_saved, summary, write_seeing

GOLDEN = json.loads((Path(__file__).parent / "golden" / "projectors.json").read_text("utf-8"))[
    "projectors"
]


class Quiet(Silent):
    def text(self, piece: str) -> None:
        pass


def projector(folder: Path, out: Path, kind: str, **more: Any) -> Path:
    convert_projector(folder, out, kind, report=Quiet(), **more)
    return out


@pytest.mark.parametrize("model_type", sorted(SHAPES))
def test_every_type_of_every_generation_is_what_llama_cpps_converter_writes(
    tmp_path: Path, model_type: str
) -> None:
    folder = write_seeing(tmp_path / model_type, model_type)
    for kind in tower.TYPES:
        out = projector(folder, tmp_path / f"{kind}.gguf", kind)
        assert summary(out) == GOLDEN[model_type][kind], kind
        found = SHAPES[model_type].vision
        assert found is not None
        assert out.stat().st_size == tower.file_bytes(found, kind, ROOM)
    if "text" in GOLDEN[model_type]:
        convert(folder, tmp_path / "text.gguf", "BF16")
        assert summary(tmp_path / "text.gguf") == GOLDEN[model_type]["text"]


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_5"])
def test_the_bytes_depend_neither_on_threads_nor_on_who_named_the_tensors(
    tmp_path: Path, model_type: str
) -> None:
    folder = write_seeing(tmp_path / model_type, model_type)
    first = projector(folder, tmp_path / "a.gguf", "Q8_0", threads=1).read_bytes()
    as_saved(folder, model_type)
    assert projector(folder, tmp_path / "b.gguf", "Q8_0", threads=3).read_bytes() == first


def test_a_checkpoint_in_half_precision_gives_the_weights_that_it_has(tmp_path: Path) -> None:
    folder = write_seeing(tmp_path / "tiny", "qwen3_vl", dtype="F16")
    source = Checkpoint.open(folder)
    reader = gguf.GGUFReader(projector(folder, tmp_path / "out.gguf", "F16"))
    found = {tensor.name: tensor for tensor in reader.tensors}
    with (folder / WEIGHTS).open("rb") as file:

        def stored(name: str) -> Any:
            info = source.vision().tensors[name]
            file.seek(info.offset)
            return np.frombuffer(file.read(info.nbytes), "<f2").reshape(info.shape)

        convolution = stored("visual.patch_embed.proj.weight")
        for frame, end in enumerate(("weight", "weight.1")):
            assert (found[f"v.patch_embd.{end}"].data == convolution[:, :, frame]).all()
        last = stored("visual.deepstack_merger_list.2.linear_fc2.weight")
        # The third entry of deepstack_visual_indexes is layer 3.
        assert (found["v.deepstack.3.fc2.weight"].data == last).all()


def test_rows_that_no_block_divides_stay_in_half_precision() -> None:
    found = catalog.find("Qwen3-VL-8B-Instruct").tower
    assert found is not None
    types = tower.types(list(tower.tensors(found)), "Q8_0")
    assert types["v.blk.0.ffn_down.weight"] == "F16"
    assert types["v.blk.0.ffn_up.weight"] == types["mm.0.weight"] == "Q8_0"
    assert types["v.position_embd.weight"] == types["v.patch_embd.weight.1"] == "F32"


def test_every_tower_of_the_catalogue_is_mapped_without_loss() -> None:
    towers = {variant.tower for variant in catalog.load() if variant.tower is not None}
    assert len(towers) > 12
    for found in towers:
        planned = list(tower.tensors(found))
        assert sum(tensor.elements for tensor in planned) == found.parameters()
        assert len({tensor.name for tensor in planned}) == len(planned)
        assert all(sum(part.rows for part in tensor.parts) == tensor.rows for tensor in planned)
        for tensor in planned:
            kind = tower.type_of(tensor, "Q8_0")
            assert tower.row_bytes(kind, tensor.columns) == row_bytes(kind, tensor.columns)


def test_the_type_follows_the_text_in_16_bits_and_is_8_bits_on_devices() -> None:
    kinds = {name: projector_type(name) for name in PRESETS}
    assert {name for name, kind in kinds.items() if kind == name} == {"F16", "BF16", "Q8_0"}
    assert set(kinds.values()) == {"F16", "BF16", "Q8_0"}


def test_a_tower_with_nan_is_refused_by_name_and_nothing_stays(tmp_path: Path) -> None:
    folder = write_seeing(tmp_path / "tiny", "qwen2_vl")
    name = "visual.blocks.2.mlp.fc1.weight"
    overwrite(folder, name, 5, struct.pack("<H", 0x7FC0))
    with pytest.raises(PackError, match=f"'{name}'.*NaN or infinity"):
        projector(folder, tmp_path / "out" / "mmproj.gguf", "F16")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_absent_tower_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = write_seeing(tmp_path / "tiny", "qwen2_vl")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PackError, match="normalized"):
        projector(folder, tmp_path / "out" / "mmproj.gguf", "F16")
    assert not (tmp_path / "out").exists()
