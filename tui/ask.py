"""What is asked of the core on the way from a device to a plan, as frozen values; no screen is
known here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import usage
from packager.escapes import command
from packager.files import expanded
from packager.need.languages import ENGLISH
from packager.need.workload import Preference, Workload, merge

if TYPE_CHECKING:
    from packager.chat.profile import Profile
    from packager.device.target import Target
    from packager.plan.additions import Additions
    from packager.quality.gate import Gate
    from packager.select import Candidate
    from packager.sources.hub_file import HubFile

_MB = 10**6
SOURCES = ("hub", "modelscope", "dummy")
"""What `--weights` may say besides a path."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The workload as far as the person has said it; None leaves it to the target and the use case.

    Tokens, tokens per second, milliseconds, bytes: the fields of Workload, and the flags of the
    command line.
    """

    use_case: str | None = None
    context: int | None = None
    prompt: int | None = None
    min_decode_tps: float | None = None
    max_ttft_ms: float | None = None
    max_artifact_bytes: int | None = None
    max_memory_bytes: int | None = None
    languages: tuple[str, ...] | None = None
    prefer: Preference | None = None
    max_file_bytes: int | None = None
    licenses: tuple[str, ...] | None = None
    min_scores: tuple[tuple[str, float], ...] | None = None
    dimension: int | None = None
    documents_per_second: float | None = None
    query_ms: float | None = None
    max_image_tokens: int | None = None
    max_audio_seconds: int | None = None
    parallel: int | None = None
    modality: tuple[str, ...] | None = None

    def flags(self) -> list[str]:
        """The same as words of the command line; sizes become MB, rounded as the command line
        rounds them back."""
        words: list[str] = []
        for name, value in asdict(self).items():
            if value is None:
                continue
            if name == "languages":
                # None at all, where the device's file asks for some, is said by the one that goes
                # without saying.
                words += ["--language", ",".join(value or (ENGLISH,))]
                continue
            if name in ("licenses", "min_scores", "max_file_bytes", "modality"):
                words += _words_of(name, value)
                continue
            if name.endswith("_bytes"):
                name, value = name.replace("_bytes", "_mb"), value / _MB
            text = value if isinstance(value, str) else f"{value:.15g}"
            words += [f"--{name.replace('_', '-')}", text]
        return words

    def enforced(self) -> frozenset[str]:
        """The budgets that the person set, which fail a build that misses them."""
        from packager.report.budgets import SET_BY

        return frozenset(rule for name, rule in SET_BY.items() if getattr(self, name) is not None)

    def given(self) -> Mapping[str, Any]:
        """Fields of Workload."""
        return {
            **asdict(self),
            "min_scores": None if self.min_scores is None else dict(self.min_scores),
        }


@dataclass(frozen=True, slots=True)
class DeploymentProfile:
    """How the model is to behave, as the flags of `build` say it; None leaves it to the checkpoint.

    `thinking` is `on`, `off` or `budget:N`; `system_prompt` and `tools` are paths of files;
    `sampling` is KEY=VALUE with commas between several. `warm` keeps the state of the prefix that
    they fix; `speculate` is how tokens are drafted, None for not at all.
    """

    thinking: str | None = None
    system_prompt: str | None = None
    tools: str | None = None
    sampling: str | None = None
    warm: bool = False
    speculate: str | None = None

    def flags(self) -> list[str]:
        """The same as words of the command line."""
        given = {"thinking": self.thinking, "sampling": self.sampling}
        given |= {"system-prompt": self.system_prompt, "tools": self.tools}
        given["speculate"] = self.speculate
        words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
        return [*words, "--warm"] if self.warm else words

    def read(self) -> Profile:
        """The profile, its files read. Raises PackError as `packager.chat.profile_files.parse`."""
        # Late: nobody needs it for the first paint.
        from packager.chat.profile_files import parse

        prompt, tools = (
            None if name is None else Path(name) for name in (self.system_prompt, self.tools)
        )
        return parse(self.thinking, prompt, tools, self.sampling)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What else a build takes, as its flags say it; nothing said leaves it to the tool.

    `against`, `tokenizer`, `imatrix`, `calibration` and `quality_text` are paths (`against` may be
    a repository), `tensor_types` PATTERN=TYPE, `sustained_s` seconds.
    """

    revision: str | None = None
    offline: bool = False
    against: str | None = None
    tokenizer: str | None = None
    imatrix: str | None = None
    calibration: str | None = None
    tensor_types: tuple[str, ...] = ()
    repack: bool = False
    adapter_inputs: bool = False
    sustained_s: float = 0
    quality_text: str | None = None
    quality_tokens: int | None = None
    allow_quality_loss: bool = False
    version: str | None = None

    def flags(self) -> list[str]:
        """The same as words of the command line."""
        texts = {
            "--revision": self.revision,
            "--against": self.against,
            "--tokenizer": self.tokenizer,
            "--imatrix": self.imatrix,
            "--calibration": self.calibration,
            "--quality-text": self.quality_text,
            "--package-version": self.version,
        }
        words = [word for flag, value in texts.items() if value for word in (flag, value)]
        words += [word for one in self.tensor_types for word in ("--tensor-type", one)]
        words += ["--sustained", f"{self.sustained_s:.15g}"] if self.sustained_s else []
        words += ["--quality-tokens", str(self.quality_tokens)] if self.quality_tokens else []
        consents = {
            "--offline": self.offline,
            "--repack": self.repack,
            "--adapter-inputs": self.adapter_inputs,
            "--allow-quality-loss": self.allow_quality_loss,
        }
        return [*words, *(flag for flag, said in consents.items() if said)]

    def additions(self) -> Additions:
        """What is added to a recipe. Raises PackError as `packager.plan.additions.parse`."""
        from packager.plan.additions import parse

        matrix, text = (
            None if name is None else Path(name) for name in (self.imatrix, self.calibration)
        )
        return parse(matrix, text, self.tensor_types, self.repack, self.adapter_inputs)

    def gate(self) -> Gate:
        """How the quality gate is to be held."""
        from packager.quality.gate import Gate

        file = None if self.quality_text is None else Path(self.quality_text)
        return Gate(file, self.quality_tokens, self.allow_quality_loss)


@dataclass(frozen=True, slots=True)
class FileOfHub:
    """A converted model in a repository of the hub: its repository, its name there, the revision
    that was asked for, and the file once it is fetched."""

    repo_id: str
    name: str
    file: HubFile | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Everything that the table of candidates and the plan depend on. `weights` is `hub`,
    `modelscope`, `dummy` or a path; `kv` a cache type to try; `lora` are adapters that are merged,
    as `--lora` names them; `hub_file` is a converted model that is taken in place of `weights`;
    `machine` is one of the lab that measures the package, as `--on` takes it."""

    target: Target
    wish: Wish = Wish()
    weights: str = "hub"
    kv: str | None = None
    lora: tuple[str, ...] = ()
    profile: DeploymentProfile = DeploymentProfile()
    options: BuildOptions = BuildOptions()
    hub_file: FileOfHub | None = None
    machine: str | None = None

    @property
    def place(self) -> str:
        """Where the weights lie: as `weights` says, or the file of the hub that was fetched."""
        given = self.hub_file
        return self.weights if given is None or given.file is None else str(given.file.path)

    def workload(self) -> Workload:
        """The workload that the command line would make of the same wishes. Raises PackError where
        they contradict each other."""
        return merge(self.wish.given(), self.target.workload)

    def wishing(self, **fields: Any) -> Ask:
        """The same with other wishes."""
        return replace(self, wish=replace(self.wish, **fields))


def _words_of(name: str, value: Any) -> list[str]:
    if name == "licenses":
        return [word for licence in value for word in ("--license", licence)]
    if name == "modality":
        return [word for kind in value for word in ("--modality", kind)]
    if name == "min_scores":
        return [word for test, least in value for word in ("--min-score", f"{test}={least:g}")]
    return ["--max-file-size", f"{value / _MB:.15g}M"]


def specs(text: str) -> tuple[str, ...]:
    """The adapters of a line of text: one that is a folder as it stands, else words with spaces
    between them, quoted as in a shell. Raises PackError (usage) for a quote that does not end."""
    if not text.strip() or expanded(text.strip()).is_dir():
        return (text.strip(),) if text.strip() else ()
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise usage(
            f"The adapters {text.strip()!r} have a quote that does not end.",
            "Close it, or write --lora names without quotes.",
        ) from None


def measured_on(ask: Ask, candidate: Candidate) -> str | None:
    """The machine of the lab that measures what is built of a candidate; None where an agent there
    does not run such packages."""
    shape = candidate.variant.shape
    runs = candidate.runtime == "llama.cpp" and (shape is None or shape.task == "generate")
    return ask.machine if runs else None


def build_command(ask: Ask, candidate: Candidate, out: Path | None = None) -> str:
    """The command line that builds this candidate: the choice is named only where it is not the
    tool's own."""
    words = ["qwen-pack", "build", "--target", target_word(ask.target)]
    for name, value in named(ask, candidate).items():
        words += [f"--{name}", value] if value else []
    if ask.hub_file is not None:
        words += ["--model", ask.hub_file.repo_id, "--hub-file", ask.hub_file.name]
    elif ask.weights != "hub":
        words += ["--weights", ask.weights]
    words += [word for one in ask.lora for word in ("--lora", one)]
    words += [*ask.profile.flags(), *ask.wish.flags(), *ask.options.flags()]
    machine = measured_on(ask, candidate)
    words += [] if machine is None else ["--on", machine]
    if out is not None:
        words += ["--out", str(out)]
    return command(words)


def named(ask: Ask, candidate: Candidate) -> dict[str, str | None]:
    """`model` and `recipe` to name so that the core chooses this candidate; None leaves a choice to
    it."""
    if candidate.verdict == "chosen" and ask.kv is None:
        return {"model": None, "recipe": None}
    local = ask.hub_file is not None or ask.weights not in SOURCES
    recipe = "/".join(
        part for part in candidate.recipe.id.split("/") if part not in candidate.recipe.marks
    )
    return {"model": None if local else candidate.variant.name, "recipe": recipe}


def target_word(target: Target) -> str:
    """What --target takes: the name of a built-in target, else the file."""
    builtin = not target.path or Path(target.path).parent.name == "devices"
    return target.name if builtin else target.path
