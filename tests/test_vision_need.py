"""Pictures in the need: image tokens, which variants may be chosen, what a tower takes of memory
and time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from packager import catalog
from packager.device.target import Target
from packager.errors import ExitCode, PackError
from packager.need.workload import Workload, merge
from packager.predict.forecast import picture_operations, predict
from packager.select import candidates, choose
from packager.select.misses import nearest_misses
from packager.shape import Shape
from targets import registry
from targets.gguf import tower
from targets.gguf.presets import ROOM
from targets.llama_cpp import LlamaCpp, memory, projector_bytes
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino

LLAMA = LlamaCpp()
MIB = 1 << 20
SMALL = ("Qwen2-VL-2B-Instruct", "Qwen3-VL-4B-Instruct", "Qwen3.5-4B")


def seeing(name: str, tokens: int) -> Shape:
    variant = catalog.find(name)
    assert variant.shape is not None and variant.tower is not None
    return variant.shape.seeing(variant.tower, tokens)


class TestTheWorkload:
    def test_a_picture_of_a_megapixel_and_a_question_are_the_usual_prompt(self) -> None:
        usual = merge({"use_case": "vision"}, None)
        assert (usual.max_image_tokens, usual.prompt, usual.context) == (1024, 1536, 4096)
        assert usual.pictures

    @pytest.mark.parametrize(
        ("flags", "prompt", "context"),
        [
            ({"max_image_tokens": 256}, 768, 4096),
            ({"max_image_tokens": 4096}, 4608, 7168),
            ({"max_image_tokens": 4096, "prompt": 600}, 600, 4096),
            ({"max_image_tokens": 256, "context": 1024}, 768, 1024),
        ],
    )
    def test_larger_pictures_take_a_longer_prompt_and_context(
        self, flags: dict[str, Any], prompt: int, context: int
    ) -> None:
        found = merge({"use_case": "vision", **flags}, None)
        assert (found.prompt, found.context) == (prompt, context)

    def test_pictures_may_come_into_a_chat(self) -> None:
        chat = merge({}, None)
        found = merge({"modality": ("text", "image")}, None)
        assert found.max_image_tokens == 1024
        assert found.prompt == chat.prompt + 1024

    def test_text_alone_has_no_limit_of_pictures(self) -> None:
        alone = merge({"use_case": "vision", "modality": ("text",)}, None)
        assert alone.max_image_tokens is None and not alone.pictures
        with pytest.raises(PackError, match="--max-image-tokens has no effect") as caught:
            merge({"max_image_tokens": 64}, None)
        assert caught.value.exit_code == ExitCode.USAGE


class TestTheChoice:
    def need(self, **flags: Any) -> Workload:
        return merge({"use_case": "vision", **flags}, None)

    @pytest.mark.parametrize(
        ("device", "tokens"),
        [
            ("laptop-cpu", 512),
            ("raspberry-pi-5-8gb", 256),
            ("android-8gb", 128),
            ("iphone-8gb", 1024),
            ("edge-gpu", 1024),
        ],
    )
    def test_every_kind_of_device_has_an_answer_with_its_tower(
        self, device: str, tokens: int
    ) -> None:
        target = registry.target(device)
        variants = [catalog.find(name) for name in SMALL]
        found = choose(
            candidates(target, self.need(max_image_tokens=tokens), variants, [LLAMA], named=False)
        )
        assert found is not None and found.variant.shape is not None
        assert found.runtime == "llama.cpp"
        assert found.variant.shape.image_tokens == tokens
        assert found.variant.shape.vision == catalog.find(found.variant.repo_id).tower

    def test_a_slow_device_plans_smaller_pictures_by_itself(self) -> None:
        variants = [catalog.find("Qwen2-VL-2B-Instruct")]
        for device in ("raspberry-pi-5-8gb", "android-8gb"):
            target = registry.target(device)
            need = merge({"use_case": "vision"}, target.workload)
            assert (need.max_image_tokens, need.prompt) == (256, 768)
            assert choose(candidates(target, need, variants, [LLAMA], named=False)) is not None
            given = merge({"use_case": "vision", "max_image_tokens": 512}, target.workload)
            assert given.max_image_tokens == 512
            assert merge({}, target.workload).max_image_tokens is None

    def test_smaller_pictures_are_proposed_where_the_wait_is_too_long(self) -> None:
        target, need = registry.target("raspberry-pi-5-8gb"), self.need()
        variants = [catalog.find("Qwen2-VL-2B-Instruct")]
        found = candidates(target, need, variants, [LLAMA], named=False)
        assert choose(found) is None
        flag = nearest_misses(target, need, found, [LLAMA], named=False, limit=1)[0].flag
        assert flag == "--max-image-tokens 256 --prompt 768"

    def test_without_pictures_the_decoder_alone_is_built(self) -> None:
        variants = [catalog.find("Qwen3.5-4B")]
        text = merge({}, None)
        found = candidates(registry.target("laptop-cpu"), text, variants, [LLAMA])
        assert found[0].variant.shape is not None
        assert found[0].variant.shape.vision is None

    def test_a_model_that_also_hears_and_speaks_is_built_for_pictures_and_for_text(self) -> None:
        variant, target = catalog.find("Qwen2.5-Omni-7B"), registry.target("edge-gpu")
        found = choose(candidates(target, self.need(), [variant], [LLAMA]))
        assert found is not None and found.variant.shape is not None
        assert found.variant.shape.vision == variant.tower
        # As large as Qwen2.5-VL's, whose queries, keys and values are in one matrix.
        like = catalog.find("Qwen2.5-VL-7B-Instruct").tower
        assert variant.tower is not None and like is not None and variant.tower != like
        assert variant.tower.parameters() == like.parameters()
        text = choose(candidates(target, merge({}, None), [variant], [LLAMA], named=True))
        assert text is not None and text.variant.shape is not None
        assert text.variant.shape.modality == "text"

    def test_the_other_engines_say_why_they_take_no_pictures_and_what_does(self) -> None:
        target, need = registry.target("laptop-cpu"), self.need()
        families = ("Qwen3-VL-2B-Instruct", "Qwen2.5-VL-3B-Instruct", "Qwen3.5-0.8B")
        for runtime, words, names in (
            (OpenVino(), "takes pictures of qwen2_vl, qwen2_5_vl, qwen3_vl here", families[2:]),
            (OnnxRuntime(), "GenAI 0.18 drops the DeepStack states", families),
        ):
            for name in names:
                found = candidates(target, need, [catalog.find(name)], [runtime], named=True)
                reasons = [str(reason) for row in found for reason in row.reasons]
                assert any(words in reason and "llama.cpp" in reason for reason in reasons), name

    def test_openvino_is_offered_for_the_families_whose_graphs_are_written(self) -> None:
        target, need = registry.target("laptop-cpu"), self.need()
        for name in ("Qwen3-VL-2B-Instruct", "Qwen2.5-VL-3B-Instruct", "Qwen2-VL-2B-Instruct"):
            found = candidates(target, need, [catalog.find(name)], [OpenVino()], named=True)
            assert any(row.sized and row.footprint.total > 0 for row in found), name

    def test_video_and_a_model_without_a_tower_are_refused_with_the_reason(self) -> None:
        target = registry.target("laptop-cpu")
        need = replace(self.need(), modality=("text", "image", "video"))
        for name, words in (
            ("Qwen2-VL-2B-Instruct", "text and image, which is all that is built of it"),
            ("Qwen2.5-1.5B-Instruct", "modality"),
        ):
            found = candidates(target, need, [catalog.find(name)], [LLAMA])
            assert words in " ".join(map(str, found[0].reasons)), name

    def test_the_other_runtimes_say_that_they_build_no_tower(self) -> None:
        found = candidates(
            registry.target("laptop-cpu"),
            self.need(),
            [catalog.find("Qwen3.5-4B")],
            [OpenVino(), OnnxRuntime()],
            every=True,
        )
        assert found and not any(candidate.passes for candidate in found)


class TestWhatATowerTakes:
    # MiB of the compute buffer as mtmd reports it, by variant and image tokens: what memory.toml
    # was fitted to, and the points between.
    MEASURED = (
        ("Qwen3-VL-2B-Instruct", 256, 39.0),
        ("Qwen3-VL-2B-Instruct", 1024, 156.1),
        ("Qwen3-VL-2B-Instruct", 4096, 624.3),
        ("Qwen3.5-0.8B", 4096, 312.3),
        ("Qwen2.5-VL-3B-Instruct", 324, 82.0),
        ("Qwen2.5-VL-3B-Instruct", 1369, 434.0),
        ("Qwen2.5-VL-3B-Instruct", 2116, 704.8),
        ("Qwen2.5-VL-3B-Instruct", 4096, 1893.0),
        ("Qwen2-VL-2B-Instruct", 2116, 267.1),
    )

    @pytest.mark.parametrize(("name", "tokens", "mib"), MEASURED)
    def test_the_compute_buffer_is_what_was_measured(
        self, name: str, tokens: int, mib: float
    ) -> None:
        found = memory.tower_buffer(seeing(name, tokens))
        assert found / MIB == pytest.approx(mib, rel=0.055)

    def test_weights_and_file_are_counted_to_the_byte(self) -> None:
        shape = seeing("Qwen3-VL-2B-Instruct", 1024)
        assert shape.vision is not None
        recipe = LLAMA.recipe("F16")
        # 2 bytes a weight, and two more of vectors and positions.
        f32 = sum(
            tensor.elements
            for tensor in tower.tensors(shape.vision)
            if tower.type_of(tensor, "F16") == "F32"
        )
        weights = memory.tower_weights(shape, recipe)
        assert weights == 2 * shape.vision.parameters() + 2 * f32
        with_tower, alone = (LLAMA.artifact_bytes(one, recipe) for one in (shape, shape.decoder))
        assert with_tower - alone == projector_bytes(shape, recipe)
        assert projector_bytes(shape, recipe) == tower.file_bytes(shape.vision, "F16", ROOM)
        assert LLAMA.least_file_bytes(shape, recipe) >= projector_bytes(shape, recipe)

    def test_the_footprint_grows_by_the_tower_and_its_picture_alone(self) -> None:
        shape, recipe = seeing("Qwen2-VL-2B-Instruct", 1024), LLAMA.recipe("Q4_K_M")
        seen, alone = (LLAMA.footprint(one, recipe, 4096) for one in (shape, shape.decoder))
        assert seen.weights - alone.weights == memory.tower_weights(shape, recipe)
        assert seen.compute - alone.compute == memory.tower_compute(shape)
        assert (seen.kv_cache, seen.overhead) == (alone.kv_cache, alone.overhead)

    def test_a_gpu_with_memory_of_its_own_takes_the_whole_tower_or_nothing(self) -> None:
        shape, recipe = seeing("Qwen3-VL-4B-Instruct", 1024), LLAMA.recipe("Q4_K_M")
        tower_bytes = memory.tower_weights(shape, recipe)
        for layers, on_device in ((0, 0), (5, tower_bytes), (shape.layers + 1, tower_bytes)):
            seen, alone = (
                LLAMA.split(one, recipe, 4096, 1536, layers) for one in (shape, shape.decoder)
            )
            assert seen.device.weights - alone.device.weights == on_device
            assert seen.host.weights - alone.host.weights == tower_bytes - on_device

    def test_the_time_of_a_picture_grows_faster_than_its_tokens(self) -> None:
        few, many = (
            picture_operations(seeing("Qwen3-VL-2B-Instruct", tokens)) for tokens in (256, 1024)
        )
        assert many > 4 * few > 0
        assert picture_operations(seeing("Qwen3-VL-2B-Instruct", 256).decoder) == 0

    def test_the_encoders_part_of_the_first_token_is_a_figure_of_its_own(self) -> None:
        shape = seeing("Qwen3-VL-2B-Instruct", 256)
        seen, alone = (
            predict(one, 10**9, 300, 20e9, 2e11, "measured") for one in (shape, shape.decoder)
        )
        told = seen.as_dict()
        assert seen.encode is not None and alone.encode is None
        assert told["encode_ms"] == pytest.approx(1000 * picture_operations(shape) / 2e11, rel=1e-4)
        assert seen.encode.low < seen.encode.value < seen.encode.high < seen.ttft_high_ms
        assert seen.ttft_ms - alone.ttft_ms == pytest.approx(seen.encode.value, rel=1e-4)
        assert not any(name.startswith("encode") for name in alone.as_dict())


def test_a_phone_asks_by_default_for_pictures_that_it_takes_in_time() -> None:
    """Where one of 256 tokens meets the limits for certain, that of the default does."""
    phones = [target for target in registry.targets() if target.kind == "phone"]
    assert len(phones) > 9

    def sure(target: Target, **size: int) -> bool:
        workload = merge({"use_case": "vision", **size}, target.workload)
        return candidates(target, workload, catalog.load(), registry.runtimes())[0].sure

    for phone in phones:
        assert sure(phone) or not sure(phone, max_image_tokens=256), phone.name
