"""Vision towers and audio encoders in GGUF: what llama.cpp's own converter makes of the tiny
checkpoints of the tests, kept for them to compare with.

    python benchmarks/projectors.py --scratch FOLDER [--only MODEL_TYPE]

For every generation the projector file in each type and the text model in 16 bits. The converter is
taken from the source archive of llama-cpp-python, which pip downloads into the scratch folder; it
needs torch and transformers. Writes tests/golden/projectors.json, whose digests hold every
tensor's name, type, axes and bytes, those of computed sinusoids left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer import source
from packager.shape.audio import HEARING
from targets.gguf.tower import TYPES
from tests.support.audio import write_hearing
from tests.support.vision import SHAPES, summary, write_seeing

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "projectors.json"

CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
from conversion import base, qwenvl
# The peer knows pre-tokenizers by the hash of what they make of a text, and does not know a
# vocabulary of our own making; it tries sentencepiece first, which no Qwen has.
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
def missing(self):
    raise FileNotFoundError
base.TextModel._set_vocab_sentencepiece = missing
# Of Qwen2.5-Omni pictures alone are built: its sound is computed wrongly.
qwenvl.Qwen25OmniModel.has_audio_encoder = False
qwenvl.Qwen25OmniModel.generate_extra_tensors = lambda self: ()
qwenvl.Qwen25AudioModel.set_gguf_parameters = base.MmprojModel.set_gguf_parameters
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    known = (*SHAPES, *HEARING)
    parser.add_argument("--only", choices=known, help="Keep what was written of the others.")
    given = parser.parse_args()
    scratch = given.scratch
    peer = source(scratch)
    found: dict[str, Any] = json.loads(GOLDEN.read_text("utf-8"))["projectors"]
    for model_type in (given.only,) if given.only else known:
        folder = scratch / "tiny" / model_type
        if model_type in HEARING:
            write_hearing(folder, model_type)
        else:
            write_seeing(folder, model_type)
        if model_type == "qwen2_5_omni":
            _named_as_published(folder)
        rows = {kind: _converted(peer, folder, kind, "--mmproj") for kind in TYPES}
        # Of the hybrids the tower changes no key of the text model, which has tests of its own.
        if model_type in HEARING or SHAPES[model_type].hybrid is None:
            rows["text"] = _converted(peer, folder, "BF16")
        found[model_type] = rows
    document = {
        "source": f"convert_hf_to_gguf.py in llama-cpp-python {version('llama-cpp-python')}; "
        "written by benchmarks/projectors.py",
        "projectors": found,
    }
    GOLDEN.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _named_as_published(folder: Path) -> None:
    """The peer knows the class's name in the published config.json alone."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), "architectures": ["Qwen2_5OmniModel"]}
    path.write_text(json.dumps(config), encoding="utf-8")


def _converted(peer: Path, folder: Path, kind: str, *more: str) -> dict[str, Any]:
    out = folder.parent / f"{folder.name}-{kind}{''.join(more)}.gguf"
    command = [sys.executable, "-c", CONVERT, str(peer), str(folder), "--outfile", str(out)]
    subprocess.run([*command, "--outtype", kind.lower(), *more], check=True)
    return summary(out)


if __name__ == "__main__":
    sys.exit(main())
