"""Train the small Qwen3-ASR of the tests: it writes down digits that are dialled or spoken. See
README.md here; needs torch and transformers, which the openvino extra installs, and espeak-ng.

    python -m training.sound FOLDER [--steps 300]

Writes the checkpoint and prints the word error rates of held-out sounds. Decoder and audio encoder
are those of the published model, only narrower.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
    Qwen3OmniMoeAudioEncoderConfig,
)
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeAudioEncoder

from packager.checkpoint.control_tokens import QWEN3_ASR
from packager.reference.audio import features
from packager.shape import Shape
from packager.shape.audio import AudioTower
from packager.sounds.words import WordErrors, word_errors
from packager.sources.dummy import write_checkpoint
from training import spoken
from training.stepper import Stepper, next_token_loss

SEED = 20261128
STEPS, ROWS = 300, 20
LENGTHS = (1, 2, 2, 3)
"""Seconds of the sounds."""
_MOST = 10
_ENCODER, _DECODER = "thinker.audio_tower.", "thinker."

TOWER = AudioTower(hidden=96, intermediate=192, depth=4, heads=3, channels=32, out=128)
SHAPE: Shape = replace(
    Shape("qwen3", 128, 3, 2, 1, 64, 256, 1024, True, False, True, 2048), model_type="qwen3_asr"
).hearing(TOWER, 8)


class _Silent:
    def progress(self, done: int, total: int | None, unit: str = "B") -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Transcriber(nn.Module):
    """Encoder and decoder; the decoder is given text, sound and text."""

    def __init__(self, words: Tokenizer) -> None:
        super().__init__()
        audio = Qwen3OmniMoeAudioEncoderConfig(
            d_model=TOWER.hidden,
            encoder_layers=TOWER.depth,
            encoder_attention_heads=TOWER.heads,
            encoder_ffn_dim=TOWER.intermediate,
            downsample_hidden_size=TOWER.channels,
            output_dim=TOWER.out,
            n_window=50,
            n_window_infer=800,
        )
        audio._attn_implementation = "eager"
        self.encoder = Qwen3OmniMoeAudioEncoder(audio)
        self.decoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=SHAPE.vocab,
                hidden_size=SHAPE.hidden,
                intermediate_size=SHAPE.intermediate,
                num_hidden_layers=SHAPE.layers,
                num_attention_heads=SHAPE.heads,
                num_key_value_heads=SHAPE.kv_heads,
                head_dim=SHAPE.head_dim,
                rms_norm_eps=SHAPE.rms_eps,
                rope_theta=SHAPE.rope_theta,
                tie_word_embeddings=True,
                max_position_embeddings=SHAPE.context,
            )
        )
        self._words = words
        # What stands at each audio token, and which digit of the sound it is. Only training has
        # them: without, the encoder learns nothing for hundreds of steps.
        self.digit, self.order = nn.Linear(TOWER.out, 11), nn.Linear(TOWER.out, _MOST)

    def ids(self, text: str) -> list[int]:
        """Tokens of a text."""
        return list(self._words.encode(text, add_special_tokens=False).ids)

    def beside(self, heard: torch.Tensor, sounds: list[spoken.Said]) -> torch.Tensor:
        """The loss of the two marks at each audio token."""
        digits = torch.full(heard.shape[:2], 10)
        orders = torch.full(heard.shape[:2], -100)
        for row, sound in enumerate(sounds):
            for number, (begin, end) in enumerate(sound.places):
                part = slice(begin * 13 // spoken.RATE, -(-end * 13 // spoken.RATE))
                digits[row, part] = int(sound.digits[number])
                orders[row, part] = min(number, _MOST - 1)
        both = (self.digit, digits), (self.order, orders)
        return sum(
            (
                functional.cross_entropy(head(heard).flatten(0, 1), right.flatten())
                for head, right in both
            ),
            torch.zeros(()),
        )

    def forward(self, sounds: list[spoken.Said]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of a batch of sounds of one length, labels (-100 for what it need not foresee),
        and the loss of what stands at each audio token."""
        mels = [features(sound.samples) for sound in sounds]
        lengths = torch.tensor([mel.shape[1] for mel in mels])
        heard = self.encoder(torch.tensor(np.concatenate(mels, 1)), feature_lens=lengths)
        heard = heard.last_hidden_state.view(len(sounds), -1, TOWER.out)
        before = self.ids("<|im_start|>user\n<|audio_start|>")
        after = self.ids("<|audio_end|><|im_end|>\n<|im_start|>assistant\n")
        answers = [
            self.ids(f"language English<asr_text>{sound.text}<|im_end|>") for sound in sounds
        ]
        longest = max(map(len, answers))
        rows = torch.tensor([[*after, *one, *[0] * (longest - len(one))] for one in answers])
        embed = self.decoder.get_input_embeddings()
        first = embed(torch.tensor(before)).expand(len(sounds), -1, -1)
        logits = self.decoder(
            inputs_embeds=torch.cat([first, heard, embed(rows)], 1), use_cache=False
        ).logits
        skipped = len(before) + heard.shape[1] + len(after)
        labels = torch.full(logits.shape[:2], -100)
        for place, one in enumerate(answers):
            labels[place, skipped : skipped + len(one)] = torch.tensor(one)
        return logits, labels, self.beside(heard, sounds)


def batch(name: str, count: int, speech: spoken.Speech | None) -> list[spoken.Said]:
    """The sounds of that name, of one length; always the same."""
    chance = random.Random(f"{SEED}/{name}")
    seconds = chance.choice(LENGTHS)
    return [spoken.said(chance, seconds, speech) for _ in range(count)]


def train(words: Tokenizer, steps: int) -> Transcriber:
    """A trained model; its loss goes to stderr."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model, speech = Transcriber(words), spoken.Speech(spoken.VOICES)
    stepper = Stepper(model, steps)
    for step in range(steps):
        logits, labels, beside = model(batch(f"train/{step}", ROWS, speech if step % 3 else None))
        loss = next_token_loss(logits, labels)
        stepper.step(step, loss + beside)
        stepper.tell(step, loss, beside)
    return model


@torch.no_grad()
def errors(model: Transcriber, speech: spoken.Speech | None, count: int = 40) -> WordErrors:
    """Over held-out sounds, each token foreseen behind the right ones."""
    total = WordErrors(0, 0)
    sounds = batch("held out", count, speech)
    logits, labels, _ = model(sounds)
    best, wanted = logits[:, :-1].argmax(-1), labels[:, 1:]
    for row, right, sound in zip(best, wanted, sounds, strict=True):
        text = model._words.decode(row[right != -100].tolist(), skip_special_tokens=False)
        text = text.rpartition("<asr_text>")[2].replace("<|im_end|>", "")
        total += word_errors(text, sound.text)
    return total


def write(model: Transcriber, folder: Path) -> None:
    """The trained weights in place of the random ones of a checkpoint that is there."""
    path = folder / "model.safetensors"
    names = load_file(path)
    state: dict[str, Any] = {
        **{_ENCODER + name: weight for name, weight in model.encoder.state_dict().items()},
        **{_DECODER + name: weight for name, weight in model.decoder.state_dict().items()},
    }
    weights = {name: state[name].to(torch.bfloat16).contiguous() for name in names}
    assert all(weights[name].shape == names[name].shape for name in names)
    save_file(weights, path, {"format": "pt"})


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    given.folder.mkdir()
    report: Any = _Silent()
    write_checkpoint(
        report, given.folder, repo_id="tiny-qwen3-asr", shape=SHAPE, control=QWEN3_ASR, seed=0
    )
    words = Tokenizer.from_file(str(given.folder / "tokenizer.json"))
    model = train(words, given.steps).eval()
    for name, speech in (("dialled", None), ("spoken", spoken.Speech(spoken.HELD_OUT))):
        found = errors(model, speech)
        print(f"{name}: {found.edits} wrong of {found.words} held-out digits")
    write(model, given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
