"""tokenizer.json as OpenVINO models, put together from openvino-tokenizers' own steps.

Its converter takes an object of transformers, and openvino-genai's GGUF reader leaves out the
normalisation and cuts texts at 8192 tokens; the steps themselves need neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint, two_files
from packager.checkpoint.added_tokens import completed
from packager.checkpoint.folder import read_json
from packager.checkpoint.retrieval import conventions
from packager.errors import PackError, bad_input
from packager.json_values import (
    JsonObject,
    JsonValue,
    at,
    at_or_none,
    list_at,
    object_at,
    object_or_empty,
    objects_at,
)

_MOST = 2**31 - 1
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def write_tokenizer(checkpoint: Checkpoint, out: Path, task: str = "generate") -> None:
    """Write tokenizer and detokenizer into `out`; an embedder's appends the checkpoint's end of
    text. Raises PackError (bad input) for what is not a byte-level BPE."""
    # Late: they load the engine.
    import openvino
    from openvino_tokenizers.constants import (
        ATTENTION_MASK_INPUT_NAME,
        TOKEN_IDS_INPUT_NAME,
        TOKENIZER_NAME,
    )
    from openvino_tokenizers.utils import change_inputs_type, change_outputs_type

    config, (definition, path) = checkpoint.tokenizer_config, definition_of(checkpoint)
    try:
        added = added_tokens(definition, config)
        if task == "generate":
            pipeline = _pipeline(definition, config, added, path)
        else:
            # openvino-genai looks for the last token where a text padded on the right has it,
            # unless it is told otherwise; Qwen's own files say left.
            config = {**config, "padding_side": "right"}
            end = conventions(checkpoint).end if task == "embed" else None
            pipeline = _pipeline(definition, config, added, path, end)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise bad_input(
            f"{path} is not a byte-level BPE tokenizer ({type(error).__name__}: {error}).",
            "Fetch it again.",
        ) from error
    graph = pipeline.get_tokenizer_ov_subgraph()
    # Numbers of segments stand between ids and mask, which are the last.
    outputs = [graph.output(0), graph.outputs[-1]]
    for output, name in zip(
        outputs, (TOKEN_IDS_INPUT_NAME, ATTENTION_MASK_INPUT_NAME), strict=True
    ):
        output.add_names({name})
    encoder = openvino.Model(outputs, graph.get_parameters(), TOKENIZER_NAME)
    encoder.add_sinks(graph.get_sinks())
    encoder = change_outputs_type(encoder, openvino.Type.i64)
    decoder = change_inputs_type(pipeline.get_detokenizer_ov_subgraph(), openvino.Type.i64)
    for model, name in ((encoder, "openvino_tokenizer.xml"), (decoder, "openvino_detokenizer.xml")):
        _describe(model, checkpoint, added)
        openvino.save_model(model, out / name, compress_to_fp16=False)


def definition_of(checkpoint: Checkpoint) -> tuple[JsonObject, Path]:
    """tokenizer.json as it is used, and the file that it is read from. Raises PackError (bad input)
    where there is none."""
    path = checkpoint.tokenizer_json
    if path is not None:
        return completed(read_json(path), checkpoint.tokenizer_config), path
    if two_files.has_two(checkpoint.files):
        made = two_files.definition_of(checkpoint.files, checkpoint.tokenizer_config)
        return made, checkpoint.files[two_files.VOCABULARY]
    raise bad_input(
        f"{checkpoint.folder} has no tokenizer.json.",
        "Save it from the tokenizer once: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
    )


def added_tokens(definition: JsonObject, config: JsonObject) -> list[JsonObject]:
    """Added tokens in the order of their ids; tokenizer_config.json may know more, and which of
    them steer the model."""
    entries = {at(entry, "id", int): entry for entry in objects_at(definition, "added_tokens")}
    decoder = object_or_empty(config, "added_tokens_decoder")
    for number in decoder:
        known = entries.get(int(number), {})
        entries[int(number)] = {**known, **object_at(decoder, number), "id": int(number)}
    named = [config.get(key) for key in _NAMED]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = config.get(key)
        named += more.values() if isinstance(more, Mapping) else list_at(config, key)
    texts = {_text(token) for token in named}
    return [
        {**entry, "special": bool(entry.get("special")) or entry["content"] in texts}
        for _, entry in sorted(entries.items())
    ]


def _text(token: JsonValue) -> JsonValue:
    return token.get("content") if isinstance(token, Mapping) else token


def _pipeline(
    definition: JsonObject,
    config: JsonObject,
    added: list[JsonObject],
    path: Path,
    end: int | None = None,
) -> Any:
    from openvino_tokenizers import tokenizer_pipeline as steps
    from openvino_tokenizers.constants import UTF8ReplaceMode

    defaults: JsonObject = {
        "unk_token": None,
        "fuse_unk": False,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "byte_fallback": False,
    }
    model: JsonObject = {**defaults, **object_at(definition, "model")}
    definition = {**definition, "model": model, "added_tokens": added}
    if (
        model.get("type", "BPE") != "BPE"
        or object_or_empty(definition, "decoder").get("type") != "ByteLevel"
    ):
        raise _foreign(path)
    pad = _text(config.get("pad_token"))
    longest = int(min(at_or_none(config, "model_max_length", float) or _MOST, _MOST))
    pipeline = steps.TokenizerPipeline()
    pipeline.number_of_inputs = 1
    special = [
        steps.SpecialToken(token["content"], bool(token.get("lstrip")), bool(token.get("rstrip")))
        for token in added
    ]
    pipeline.add_steps(steps.SpecialTokensSplit(special))
    pipeline.add_steps(_splitting(definition, path))
    pipeline.add_steps(steps.BPETokenizationStep.from_hf_json(definition))
    pipeline.vocab = pipeline[-1].vocab
    pipeline.add_steps(steps.TruncationStep(longest))
    segments: list[Any] = [steps.Sequence()]
    if end is not None:
        text = next(token["content"] for token in added if token["id"] == end)
        segments.append(steps.AddToken(token=text, _token_id=end))
    pipeline.add_steps(steps.CombineSegmentsStep(segments, add_special_tokens=True))
    number = next((token["id"] for token in added if token["content"] == pad), None)
    right = config.get("padding_side") != "left"
    pipeline.add_steps(
        steps.PaddingStep(token=pad, _token_id=number, max_length=longest, pad_right=right)
    )
    pipeline.add_steps(
        steps.VocabDecoderStep.from_hf_json(
            definition,
            pipeline.vocab,
            skip_tokens=[token["id"] for token in added if token["special"]],
            added_tokens={token["id"]: token["content"] for token in added},
            is_byte_level=pipeline.is_byte_level,
        )
    )
    pipeline.add_steps(steps.CharsToBytesStep())
    pipeline.add_steps(steps.UTF8ValidateStep(mode=UTF8ReplaceMode.REPLACE))
    if config.get("clean_up_tokenization_spaces"):
        pipeline.add_steps(steps.RegexDecodingStep.clean_up_tokenization_spaces())
    return pipeline


def _splitting(definition: JsonObject, path: Path) -> list[Any]:
    """Normalisation and the splitting into words, as tokenizer.json says."""
    from openvino_tokenizers import tokenizer_pipeline as steps

    stages: list[Any] = []
    normalizer = object_or_empty(definition, "normalizer")
    if normalizer:
        if normalizer.get("type") not in ("NFC", "NFKC"):
            raise _foreign(path)
        stages.append(steps.NormalizeUnicode(normalizer["type"]))
    stage = object_or_empty(definition, "pre_tokenizer")
    for entry in objects_at(stage, "pretokenizers") if "pretokenizers" in stage else [stage]:
        pattern = object_or_empty(entry, "pattern")
        if entry.get("type") == "Split" and "Regex" in pattern:
            behaviour = at(entry, "behavior", str).lower().removesuffix("d")
            stages.append(
                steps.RegexSplitStep(pattern["Regex"], invert=entry["invert"], behaviour=behaviour)
            )
        elif (
            entry.get("type") == "ByteLevel"
            and not entry.get("add_prefix_space")
            and not entry.get("use_regex", True)
        ):
            stages.append(steps.BytesToCharsStep())
        else:
            raise _foreign(path)
    return stages


def _foreign(path: Path) -> PackError:
    return bad_input(
        f"{path} is not built like a Qwen tokenizer: byte-level BPE after one expression.",
        "Take the tokenizer of the model's repository.",
    )


def _describe(model: Any, checkpoint: Checkpoint, added: list[JsonObject]) -> None:
    """What openvino-genai reads beside the graph."""
    import openvino
    from openvino_tokenizers import __version__ as tokenizers_version

    ids = {token["content"]: token["id"] for token in added}
    model.set_rt_info(openvino.get_version(), "openvino_version")
    model.set_rt_info(tokenizers_version, "openvino_tokenizers_version")
    for key in _NAMED[:3]:
        number = ids.get(_text(checkpoint.tokenizer_config.get(key)))
        if number is not None:
            model.set_rt_info(number, f"{key}_id")
    if checkpoint.chat_template is not None:
        model.set_rt_info(checkpoint.chat_template, "chat_template")
