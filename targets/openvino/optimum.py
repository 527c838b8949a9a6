"""Models whose graph openvino-genai does not make itself, through optimum-intel: torch traces
them."""

from __future__ import annotations

import json
from pathlib import Path

from packager.checkpoint import Checkpoint
from packager.checkpoint.numbers import check_all_finite
from packager.checkpoint.rewrite import for_every_engine
from packager.json_values import JsonObject
from packager.runtime import Report
from targets.openvino.rope import refuse_positions


def export(
    report: Report,
    checkpoint: Path,
    compression: JsonObject | None,
    out: Path,
    context: int | None = None,
) -> None:
    """Write the artifact for `context` tokens (None: as many as the model was trained for) into the
    folder `out`."""
    source = Checkpoint.open(checkpoint)
    refuse_positions(source, context)
    check_all_finite(source)
    checkpoint = for_every_engine(report, source, out.with_name("checkpoint")).folder
    report.note("loading the exporter")
    from openvino import save_model
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
    from transformers import AutoTokenizer, GenerationConfig

    report.note("tracing the graph" + (" and compressing the weights" if compression else ""))
    # load_in_8bit=False: without it models over 1 billion parameters are compressed to int8
    # unasked.
    how = (
        {"quantization_config": OVWeightQuantizationConfig(**compression)}
        if compression
        else {"load_in_8bit": False}
    )
    model = OVModelForCausalLM.from_pretrained(
        str(checkpoint),
        export=True,
        compile=False,
        trust_remote_code=False,
        local_files_only=True,
        use_cache=True,
        **how,
    )
    report.note("writing the model")
    model.save_pretrained(out)
    if (checkpoint / "generation_config.json").is_file():
        GenerationConfig.from_pretrained(checkpoint).save_pretrained(out)
    report.note("converting the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(
        str(checkpoint), trust_remote_code=False, local_files_only=True
    )
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    save_model(encoder, out / "openvino_tokenizer.xml")
    save_model(decoder, out / "openvino_detokenizer.xml")
    tokenizer.save_pretrained(out)
    _leave_no_traces(out)


def _leave_no_traces(built: Path) -> None:
    """Remove what names this machine, and the second copy of the vocabulary, which openvino-genai
    does not read."""
    (built / "tokenizer.json").unlink(missing_ok=True)
    # It repeats the settings without bits and group size, and holds the checkpoint's path.
    (built / "openvino_config.json").unlink(missing_ok=True)
    for path in sorted(built.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path"):
            data.pop(key, None)
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
