"""What llama.cpp computes from our files is what transformers, or the reference, computes: names,
heads, norms and keys are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.checkpoint import Checkpoint
from packager.reference import Reference
from targets.llama_cpp.session import Session
from tests.support.gguf_checkpoints import OTHERS, SHAPES, build, checkpoint
from tests.support.make_checkpoint import Silent

pytestmark = pytest.mark.engine

PROMPT = [5, 300, 17, 911, 42, 256, 8, 77, 640, 3, 99, 512]


def logits_of_llama(path: Path) -> np.ndarray[Any, Any]:
    """Logits behind the last token of the prompt."""
    session = Session(str(path), {"context": 256, "kv": "f16", "threads": 1})
    session._feed(PROMPT)
    count = session._lib.llama_vocab_n_tokens(session._vocab)
    found = np.ctypeslib.as_array(
        session._lib.llama_get_logits_ith(session._context, -1), (count,)
    ).copy()
    session.close()
    return found


def logits_of_transformers(folder: Path) -> np.ndarray[Any, Any]:
    """The same, in float32."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].numpy()


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES[name], dtype="F32")
    ours = logits_of_llama(build(source, tmp_path / "model.gguf", "BF16"))
    theirs = logits_of_transformers(source)
    # bfloat16 weights and a half-precision cache against float32 throughout: a wrong head or norm
    # would leave nothing of the correlation.
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


@pytest.mark.parametrize("name", list(OTHERS))
def test_where_transformers_loads_none_the_logits_are_those_of_the_reference(
    name: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", OTHERS[name], dtype="F32")
    ours = logits_of_llama(build(source, tmp_path / "model.gguf", "BF16"))
    theirs = Reference.compute(Checkpoint.open(source), [PROMPT], Silent()).logits(0)[-1]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()
