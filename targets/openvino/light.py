"""Dense models without torch: the graph from openvino-genai, the weights from the checkpoint, NNCF
where a recipe compresses.

The first generation is a dense Qwen2 under other names, and is given them first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packager.checkpoint import Checkpoint, codes, retrieval_file
from packager.checkpoint.rewrite import in_qwen2_form
from packager.json_values import JsonDict, JsonObject, at
from packager.python import without
from packager.runtime import Report
from packager.shape import tensors
from packager.shape.positions import Positions
from targets.openvino import names, pooled, repacked
from targets.openvino.rope import put_positions, refuse_positions
from targets.openvino.sizes import OUTPUT, Compression
from targets.openvino.skeleton import GRAPH, write_skeleton
from targets.openvino.tokenizer import write_tokenizer
from targets.openvino.weights import put_weights

_MACHINE_KEYS = ("_name_or_path", "name_or_path")
_GGUF = "model.gguf"
_COUNTED = re.compile(r"[A-Za-z0-9]+_\d+(_compressed)?")


def export(
    report: Report,
    checkpoint: Path,
    compression: Compression | None,
    out: Path,
    context: int | None = None,
    task: str = "generate",
    *,
    repack: bool = False,
) -> int:
    """Write the artifact into the folder `out`, with what stands in between beside it.

    It is for `context` tokens; None: as many as the model was trained for. For vectors (embed) and
    scores (rerank) the graph ends behind the last norm. With `repack` what the checkpoint stores in
    groups of 4 bits stays so; returns how many matrices that are.

    Raises PackError (bad input) naming what is wrong with the checkpoint.
    """
    report.note("loading the engine")
    import openvino

    source = Checkpoint.open(checkpoint)
    refuse_positions(source, context)
    head = None if task == "generate" else retrieval_file.of(source, task)
    taken = repacked.taken_over(source) if repack else None
    # The weights are read under their official names here, whatever the files call them.
    opened = in_qwen2_form(report, source, out.with_name("qwen2"))
    if head is not None:
        opened = _without_output(opened, task)
    scratch = out.with_name("graph")
    scratch.mkdir()
    out.mkdir()
    if compression is not None and "blocks" in compression:
        model = _from_blocks(report, opened, at(compression, "blocks", str), scratch)
    else:
        model = _from_weights(report, opened, compression, scratch, taken)
    put_positions(model, opened.positions)
    if head is not None:
        # Behind the compression, which would take the last matrix that is left for the output.
        pooled.cut(model, retrieval_file.answers(source) if task == "rerank" else None)
    name_by_place(model)
    report.note("writing the model")
    openvino.save_model(model, out / GRAPH, compress_to_fp16=False)
    report.note("converting the tokenizer")
    write_tokenizer(opened, out, task)
    write_papers(opened, out, ends=head is None)
    if head is not None:
        retrieval_file.write(head, out)
    return len(taken or ())


def _without_output(opened: Checkpoint, task: str) -> Checkpoint:
    """The checkpoint as one whose output matrix is its embedding: of the graph nothing is kept of
    it."""
    tensors = {name: info for name, info in opened.tensors.items() if name != OUTPUT}
    return replace(
        opened,
        config={**opened.config, "tie_word_embeddings": True},
        shape=opened.shape.for_task(task),
        tensors=tensors,
        chat_template=None,
    )


def plainly_placed(config: JsonObject) -> JsonObject:
    """The configuration with plain positions and no windows: the graph is given the true ones
    afterwards."""
    dropped = (
        "rope_scaling",
        "rope_parameters",
        "use_sliding_window",
        "sliding_window",
        "layer_types",
        "max_window_layers",
    )
    return {key: value for key, value in config.items() if key not in dropped}


def name_by_place(model: Any) -> None:
    """Names that count what a process made so far become names that count the graph's own nodes:
    every build writes the same. Products are called after their matrices: by these names
    openvino-genai finds the layers of an adapter."""
    for number, node in enumerate(model.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(names.product(node) or f"{node.get_type_name()}_{number}")


def _from_weights(
    report: Report,
    opened: Checkpoint,
    compression: Compression | None,
    scratch: Path,
    taken: Mapping[str, codes.Part] | None = None,
) -> Any:
    """The checkpoint's own numbers, compressed where the recipe says so."""
    import openvino

    report.note("building the graph")
    marks = write_skeleton(scratch, plainly_placed(opened.config), tensors(opened.shape))
    model = openvino.Core().read_model(scratch / GRAPH)
    put_weights(model, marks, opened, taken)
    if compression is not None:
        report.note("compressing the weights")
        model = compress(model, compression)
    return model


def _from_blocks(report: Report, opened: Checkpoint, kind: str, scratch: Path) -> Any:
    """ggml's blocks, which openvino-genai takes over as they are."""
    import openvino
    import openvino_genai

    from targets.gguf.convert import convert
    from targets.openvino.blocks import name_constants

    report.note(f"writing {kind} blocks")
    # Embedding and output matrix lose most by 4 bits; llama.cpp's own mix keeps them wider, too.
    wide = {r"^(token_embd|output)\.weight$": "Q8_0"} if kind == "Q4_0" else None
    placed = Positions(
        "default", opened.positions.theta, opened.positions.width, opened.positions.context
    )
    plain = replace(
        opened,
        config=plainly_placed(opened.config),
        positions=placed,
        windows=(None,) * opened.shape.layers,
    )
    convert(plain, scratch / _GGUF, kind, overrides=wide, report=report)
    report.note("building the graph")
    openvino_genai.LLMPipeline(scratch / _GGUF, "CPU", enable_save_ov_model=True)
    model = openvino.Core().read_model(scratch / GRAPH)
    name_constants(model, scratch / _GGUF, plain.config, tensors(opened.shape))
    (scratch / _GGUF).unlink()
    return model


def compress(model: Any, compression: Compression, besides: Sequence[str] = ()) -> Any:
    """The openvino.Model with weights compressed by NNCF; the keys are those of
    optimum.intel.OVWeightQuantizationConfig. Operators of the types in `besides` keep theirs."""
    # NNCF loads torch wherever that is installed, two thirds of a small conversion, and asks it
    # nothing about a graph of OpenVINO's.
    with without("torch"):
        return _compressed(model, compression, besides)


def _compressed(model: Any, compression: Compression, besides: Sequence[str]) -> Any:
    import nncf

    mode = nncf.CompressWeightsMode(
        f"int{compression['bits']}_{'sym' if compression['sym'] else 'asym'}"
    )
    arguments: JsonDict = {
        "mode": mode,
        "ratio": compression["ratio"],
        "group_size": compression["group_size"],
    }
    if besides:
        arguments["ignored_scope"] = nncf.IgnoredScope(types=list(besides))
    if compression["bits"] == 4:
        fallback = nncf.GroupSizeFallbackMode(compression["group_size_fallback"])
        arguments |= {
            "all_layers": compression["all_layers"],
            "backup_mode": nncf.BackupMode(compression["backup_precision"]),
            "sensitivity_metric": nncf.SensitivityMetric(compression["sensitivity_metric"]),
            "scale_estimation": compression["scale_estimation"],
            "gptq": compression["gptq"],
            "lora_correction": compression["lora_correction"],
            "advanced_parameters": nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=fallback
            ),
        }
    compressed = nncf.compress_weights(model, **arguments)
    options = (
        compressed.get_rt_info("runtime_options").value
        if compressed.has_rt_info("runtime_options")
        else {}
    )
    # Made for the unquantized graph: with it a server would keep the cache in 16 bits.
    options.pop("KV_CACHE_PRECISION", None)
    compressed.set_rt_info(options, "runtime_options")
    return compressed


def write_papers(opened: Checkpoint, out: Path, *, ends: bool) -> None:
    """The checkpoint's configurations, without what names a machine, and its chat template as a
    file of its own; with `ends` how an answer ends."""
    config, generation = opened.config, opened.generation_config
    if not generation:
        generation = {
            key: config[key]
            for key in ("bos_token_id", "eos_token_id", "pad_token_id")
            if config.get(key) is not None
        }
    tokenizer = {
        key: value for key, value in opened.tokenizer_config.items() if key != "chat_template"
    }
    papers = {"config": config, "tokenizer_config": tokenizer}
    if ends:
        papers["generation_config"] = generation
    for name, data in papers.items():
        kept = {key: value for key, value in data.items() if key not in _MACHINE_KEYS}
        (out / f"{name}.json").write_text(
            json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    if opened.chat_template is not None:
        (out / "chat_template.jinja").write_text(opened.chat_template, encoding="utf-8")
