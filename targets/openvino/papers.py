"""What stands beside an OpenVINO graph for whoever runs it: ends of turn, sampling, chat
template."""

from __future__ import annotations

import json
from pathlib import Path

from packager.chat import speech
from packager.chat.profile import Profile
from packager.checkpoint.folder import read_json
from packager.files import write_atomically
from packager.json_values import JsonDict


def write(checkpoint: Path, profile: Profile, built: Path) -> None:
    """Put the checkpoint's ends and the profile into `built`. Raises PackError (bad input)."""
    spoken = speech.of_folder(checkpoint, profile)
    _generation_config(built / "generation_config.json", spoken.ends, profile)
    if spoken.template is None:
        return
    write_atomically(built / "chat_template.jinja", spoken.template.encode())
    _into_tokenizer(built / "openvino_tokenizer.xml", spoken.template)


def _generation_config(path: Path, ends: tuple[int, ...], profile: Profile) -> None:
    config = read_json(path) if path.is_file() else {}
    declared = config.get("eos_token_id")
    stated = declared if isinstance(declared, list) else [declared]
    changed: JsonDict = dict(profile.sampling)
    if profile.sampling:
        changed["do_sample"] = profile.sampling.get("temperature") != 0
    if set(stated) != set(ends):
        changed["eos_token_id"] = ends[0] if len(ends) == 1 else list(ends)
    if changed or not path.is_file():
        text = json.dumps({**config, **changed}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, text.encode())


def _into_tokenizer(path: Path, template: str) -> None:
    """The engine reads the template from the tokenizer's graph and not from the file beside it."""
    # Late: it loads the engine.
    import openvino
    import openvino_tokenizers  # noqa: F401  (it teaches the core the steps of a tokenizer)

    model = openvino.Core().read_model(path)
    info = model.get_rt_info()
    if "chat_template" in info and str(info["chat_template"].value) == template:
        return
    model.set_rt_info(template, "chat_template")
    aside = path.with_name("rewritten.xml")
    openvino.save_model(model, aside, compress_to_fp16=False)
    del model
    aside.replace(path)
    aside.with_suffix(".bin").replace(path.with_suffix(".bin"))
