"""Sound in the need: seconds, which variants may be chosen, what an encoder takes of memory and
time."""

from __future__ import annotations

from typing import Any

import pytest

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.need.workload import merge
from packager.predict.forecast import sound_operations
from packager.select import Candidate, candidates, choose
from packager.select.misses import nearest_misses
from packager.select.sizing import sound_prompt
from packager.shape import Shape
from targets import registry
from targets.gguf import tower
from targets.gguf.presets import ROOM
from targets.llama_cpp import LlamaCpp, memory, projector_bytes
from targets.onnxruntime import OnnxRuntime
from targets.openvino import OpenVino

LLAMA = LlamaCpp()
MIB = 1 << 20


def hearing(name: str, seconds: int) -> Shape:
    variant = catalog.find(name)
    assert variant.shape is not None and variant.audio_tower is not None
    return variant.shape.hearing(variant.audio_tower, seconds)


class TestTheWorkload:
    def test_half_a_minute_is_the_usual_sound(self) -> None:
        usual = merge({"use_case": "audio"}, None)
        assert (usual.max_audio_seconds, usual.prompt, usual.context) == (30, 512, 2048)
        assert usual.sound and not usual.pictures

    @pytest.mark.parametrize(
        ("flags", "prompt", "context"),
        [
            ({"max_audio_seconds": 10}, 252, 2048),
            ({"max_audio_seconds": 120}, 1682, 3218),
            ({"max_audio_seconds": 120, "prompt": 600}, 600, 2048),
        ],
    )
    def test_longer_sound_takes_a_longer_prompt_and_context(
        self, flags: dict[str, Any], prompt: int, context: int
    ) -> None:
        found = merge({"use_case": "audio", **flags}, None)
        assert (found.prompt, found.context) == (prompt, context)

    def test_seconds_without_sound_have_no_effect(self) -> None:
        with pytest.raises(PackError, match="--max-audio-seconds has no effect") as caught:
            merge({"max_audio_seconds": 10}, None)
        assert caught.value.exit_code == ExitCode.USAGE
        alone = merge({"use_case": "audio", "modality": ("text",)}, None)
        assert alone.max_audio_seconds is None and not alone.sound


class TestTheChoice:
    @pytest.mark.parametrize(
        "device",
        ["laptop-cpu", "raspberry-pi-5-8gb", "android-8gb", "iphone-8gb", "edge-gpu"],
    )
    def test_every_kind_of_device_has_an_answer_with_its_encoder(self, device: str) -> None:
        found = choose(
            candidates(
                registry.target(device), merge({"use_case": "audio"}, None), catalog.load(), [LLAMA]
            )
        )
        assert found is not None and found.variant.shape is not None
        assert found.variant.name == "Qwen3-ASR-0.6B"
        assert found.variant.shape.audio == found.variant.audio_tower
        assert found.variant.shape.audio_seconds == 30

    def test_others_are_refused_with_the_reason(self) -> None:
        target, need = registry.target("laptop-cpu"), merge({"use_case": "audio"}, None)
        for name, runtime, words in (
            ("Qwen3-ASR-0.6B", OnnxRuntime(), "this one is 'qwen3_asr'"),
            ("Qwen2-Audio-7B-Instruct", OpenVino(), "this one is qwen2_audio"),
            (
                "Qwen2.5-Omni-7B",
                LLAMA,
                "text and image, which is all that is built of it (llama.cpp computes its sound wrongly",
            ),
            ("Qwen-Audio-Chat", LLAMA, "that can be built is qwen/qwen2-audio-7b-instruct"),
        ):
            found = candidates(target, need, [catalog.find(name)], [runtime])
            assert choose(found) is None
            assert any(words.lower() in str(reason).lower() for reason in found[0].reasons), name

    def test_openvino_is_offered_for_processors_alone(self) -> None:
        need = merge({"use_case": "audio"}, None)
        known = [catalog.find("Qwen3-ASR-0.6B"), catalog.find("Qwen3-ASR-1.7B")]
        for device in ("laptop-cpu", "xeon-8480"):
            found = choose(candidates(registry.target(device), need, known, [OpenVino()]))
            assert found is not None and found.recipe.runtime == "openvino", device
            assert found.variant.shape is not None and found.variant.shape.audio is not None
        for device, unit in (("core-ultra-7-155h-igpu", "GPU"), ("core-ultra-7-155h-npu", "NPU")):
            judged = candidates(registry.target(device), need, known, [OpenVino()])
            assert choose(judged) is None
            sentence = f"was not tried with sound on the device's {unit}"
            assert any(sentence in str(reason) for reason in judged[0].reasons), device


class TestSoundThatIsAskedAbout:
    NAME = "Qwen2-Audio-7B-Instruct"

    def judged(self, **flags: Any) -> Candidate:
        need = merge({"use_case": "audio", **flags}, None)
        target = registry.target("edge-gpu")
        return candidates(target, need, [catalog.find(self.NAME)], [LLAMA], recipe="gguf:Q4_K_M")[0]

    def test_it_is_planned_with_its_whole_window(self) -> None:
        found = self.judged()
        shape = found.variant.shape
        assert found.verdict == "chosen" and shape is not None and shape.audio is not None
        assert shape.audio.window == 30 and shape.audio.tokens(1) == shape.audio.tokens(30) == 750
        # A short sound takes as long as a long one, and the encoder's file is counted.
        assert sound_operations(shape) == sound_operations(hearing(self.NAME, 1)) > 1e12
        size = tower.file_bytes(shape.audio, "Q8_0", ROOM)
        text = LLAMA.artifact_bytes(shape.decoder, found.recipe)
        assert found.artifact_bytes == text + size > 5.2e9
        need = merge({"use_case": "audio"}, None)
        assert sound_prompt(shape.audio, need) == need.prompt + 750 - 390

    def test_a_longer_sound_and_a_context_without_room_are_refused(self) -> None:
        [reason] = self.judged(max_audio_seconds=60).reasons
        assert reason.rule == "sound" and "30 s, and its answer" in str(reason)
        [reason] = self.judged(context=768, prompt=512).reasons
        assert reason.rule == "context" and "872 tokens" in str(reason)

    @pytest.mark.parametrize(
        ("asked", "flag"),
        [
            ({"max_audio_seconds": 60}, "--max-audio-seconds 30"),
            ({"context": 768, "prompt": 512}, "--context 1024"),
            # Trained for 8,192: too long, and not too short.
            ({"context": 65_536}, "--context 8192"),
        ],
    )
    def test_the_change_that_makes_it_fit_is_proposed(
        self, asked: dict[str, Any], flag: str
    ) -> None:
        need = merge({"use_case": "audio", **asked}, None)
        target = registry.target("edge-gpu")
        known = [catalog.find(self.NAME)]
        judged = candidates(target, need, known, [LLAMA], recipe="gguf:Q4_K_M")
        (miss,) = nearest_misses(target, need, judged, (LLAMA,))
        assert miss.flag == flag and miss.then.passes


class TestWhatItTakes:
    def test_the_file_is_known_to_the_byte_and_counts(self) -> None:
        shape = hearing("Qwen3-ASR-0.6B", 30)
        for weights, kind in (("F16", "F16"), ("Q4_K_M", "Q8_0")):
            recipe = LLAMA.recipe(weights)
            assert shape.audio is not None
            size = tower.file_bytes(shape.audio, kind, ROOM)
            assert projector_bytes(shape, recipe) == size
            text = LLAMA.artifact_bytes(shape.decoder, recipe)
            assert LLAMA.artifact_bytes(shape, recipe) == text + size

    def test_longer_sound_takes_more_time_and_a_little_more_memory(self) -> None:
        recipe = LLAMA.recipe("Q4_K_M")
        short, long = hearing("Qwen3-ASR-1.7B", 10), hearing("Qwen3-ASR-1.7B", 100)
        assert sound_operations(long) == 10 * sound_operations(short)
        more = (
            LLAMA.footprint(long, recipe, 2048).total - LLAMA.footprint(short, recipe, 2048).total
        )
        # Samples and embeddings: the encoder's buffer is that of one window.
        assert 90 * 16_000 * 4 < more < 60 * MIB
        assert memory.tower_weights(short.decoder, recipe) == 0
