"""Agents for other processors, as `qwen-pack agent build` makes them: each is one static file, answers
as the session of this machine does, and gives way to an older one."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.errors import PackError
from packager.lab.agent import Agent
from packager.lab.answers import wholes
from packager.lab.gauges import Device
from packager.lab.link import Link
from packager.lab.session import Session
from packager.lab.transport import Local
from packager.pipeline.cache import BuildCache
from targets.llama_cpp.agent import build
from targets.llama_cpp.agent.variants import agents, fitting
from targets.machine.here import here as this_machine
from tests.support import gguf_checkpoints
from tests.support.trained_package import TRAINED
from tests.test_lab_next_agent import run
from tests.test_lab_session import CONTEXT, settings

pytestmark = pytest.mark.engine

KEPT = "QWEN_PACK_AGENTS"
"""Names a cache in which agents for other machines have been built before: minutes of compiling are
no part of a test."""
PROMPTS = (
    "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHow old is Tom?<|im_end|>\n<|im_start|>assistant\n",
    '{"name": "',
)
NEW_TOKENS = 24
MOST = {"F16": 0.05, "Q8_0": 0.3}
"""How far the logits of two builds of the engine differ at most, by weights. F16: the engine's own, as
in test_engines_agree. With Q8_0 the activations are rounded to 8 bits, and kernels round otherwise."""
WHOLE = {"riscv64-rvv": "max"}
"""Variants that need more than the emulator's plain processor, and the one with everything that it
emulates. QEMU before 8.1 has none such, and no vectors of 16-bit floats at all."""
OLDER = {
    "armv8.6-i8mm": ("cortex-a53", "aarch64"),
    "armv8.2-dotprod": ("cortex-a72", "aarch64"),
    "riscv64-rvv": ("rv64", "riscv64"),
}
"""Variants, a processor of the emulator that lacks an instruction of each, and the variant that runs
there."""
TIE = 0.1
"""As in test_engines_agree: of two tokens that lie nearer, either may come."""


def alike(local: Any, remote: Session, most: float) -> None:
    """Both encode the same, compute the same within `most`, and say the same tokens up to the first
    one of which two are as likely as that."""
    for prompt in PROMPTS:
        ids = local.encode(prompt)
        assert remote.encode(prompt) == ids
        mine, theirs = (
            one.generate(ids, NEW_TOKENS, lambda _: None, stop=False) for one in (local, remote)
        )
        computed = [
            np.concatenate([block.copy() for block in one.logits([*ids, *mine])])
            for one in (local, remote)
        ]
        assert np.abs(computed[0] - computed[1]).max() < most, prompt
        second, best = np.sort(computed[0][len(ids) - 1 : -1], axis=1)[:, -2:].T
        ties = np.flatnonzero(best - second < TIE)
        sure = int(ties[0]) if len(ties) else NEW_TOKENS
        assert sure >= NEW_TOKENS // 2, prompt
        assert theirs[:sure] == mine[:sure], prompt


def built_before(name: str) -> tuple[list[str], Agent]:
    """The words that run a variant here, and the agent."""
    words = emulator(name)
    if words and shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]} (Debian: qemu-user-static)")
    if words and name in WHOLE:
        words += ["-cpu", WHOLE[name]]
        known = subprocess.run([words[0], "-cpu", "help"], capture_output=True, text=True)
        if WHOLE[name] not in known.stdout.split():
            pytest.skip(f"this {words[0]} has no processor that runs the variant")
    if not words and name not in fitting(this_machine().isa):
        pytest.skip("this processor does not run the variant")
    return words, kept(name)


def emulator(name: str) -> list[str]:
    """The words that run a variant of another architecture here; none for this machine's own."""
    architecture = agents().variants[name].needs[0]
    return [] if platform.machine() == architecture else [f"qemu-{architecture}-static"]


def kept(name: str) -> Agent:
    """The agent of a variant that was built before."""
    folder = os.environ.get(KEPT)
    found = build.cached(name, BuildCache(Path(folder))) if folder else None
    if found is None:
        pytest.skip(f"needs {KEPT} with a cache where `qwen-pack agent build --for {name}` has run")
    return found


@pytest.mark.parametrize("name", agents().variants)
def test_an_agent_of_zig_is_one_static_file_that_new_phones_can_map_and_answers_alike(
    name: str, tmp_path: Path
) -> None:
    from targets.llama_cpp.session import Session as Here

    data = kept(name).path.read_bytes()
    assert len(data) < 30_000_000
    headers = program_headers(data)
    assert not [kind for kind, _ in headers if kind in (2, 3)], "PT_DYNAMIC or PT_INTERP"
    assert min(align for kind, align in headers if kind == 1) >= 16384
    words, agent = built_before(name)
    for weights, most in MOST.items():
        model = gguf_checkpoints.build(TRAINED, tmp_path / f"{weights}.gguf", weights)
        local = Here(str(model), {"context": CONTEXT, "kv": "f16", "threads": 1})
        try:
            remote = Session("", settings([*words, str(agent.path)], model))
            alike(local, remote, most)
        finally:
            local.close()
            Device.leave()


@pytest.mark.parametrize("name", agents().variants)
def test_its_kernels_can_be_timed_whatever_an_emulators_figures_mean(name: str) -> None:
    words, agent = built_before(name)
    with contextlib.closing(Link([*words, str(agent.path)])) as link:
        for kind in ("q4_K", "q4_0", "q8_0"):
            assert link.ask(f"weights {kind} 100 256 64")["bytes"]
            assert len(wholes(link.ask("product 2 1 0"), "ns")) >= 3


@pytest.mark.parametrize("name", OLDER)
def test_a_processor_that_lacks_an_instruction_refuses_the_agent_that_uses_it_and_takes_the_next(
    name: str, tmp_path: Path
) -> None:
    processor, older = OLDER[name]
    words, oldest = built_before(older)
    if not words:
        pytest.skip("needs an emulator of older processors")
    newer = kept(name)
    board = Local(str(tmp_path), (*words, "-cpu", processor))
    found, _ = run(board, [newer, oldest])
    assert found.built_for == older
    with pytest.raises(PackError, match="does not know an instruction"):
        run(board, [newer])


def program_headers(elf: bytes) -> list[tuple[int, int]]:
    """Type and alignment of each, of a 64-bit little-endian ELF (System V ABI, AArch64)."""
    start, size, count = (
        int.from_bytes(elf[32:40], "little"),
        int.from_bytes(elf[54:56], "little"),
        int.from_bytes(elf[56:58], "little"),
    )
    rows = [elf[start + size * place :][:size] for place in range(count)]
    return [
        (int.from_bytes(row[:4], "little"), int.from_bytes(row[48:56], "little")) for row in rows
    ]
