"""The commands of the campaign: what each is given, where its result lies, and how to tell that it
is right."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from packager.errors import PackError
from packager.package.verify import verify
from tests.attack.packages import AGREED, NEW, OLD, finish, tree, write_files

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "tests" / "models" / "tiny-qwen3"
_MODEL_BYTES = 24 << 20
_SIGTERM_CAUGHT = 1 << (signal.SIGTERM - 1)
_LONGEST_S = 300.0


@dataclass(frozen=True)
class Ground:
    """What all commands start from; nothing in it is changed."""

    folder: Path
    registry: str

    @property
    def cache(self) -> Path:
        """The cache of a whole build."""
        return self.folder / "cache"

    @property
    def package(self) -> Path:
        """What that build made."""
        return self.folder / "built"


@dataclass(frozen=True)
class Command:
    """One command: `arguments` of the ground and of the place of its result; `prepare` puts what it
    changes into the room first; `same` compares two results; `replaces` says that it takes the
    place of a result that is there, and is not refused."""

    name: str
    arguments: Callable[[Ground, Path], list[str]]
    prepare: Callable[[Ground, Path], None] = lambda ground, room: None
    same: Callable[[Path, Path], bool] = field(
        default=lambda one, other: _content(one) == _content(other)
    )
    share: int = 1
    replaces: bool = False


def _content(path: Path) -> dict[str, bytes] | bytes:
    return path.read_bytes() if path.is_file() else tree(path)


def _same_model(one: Path, other: Path) -> bool:
    """The same files of the model: what was measured differs from run to run."""
    return tree(one / "model") == tree(other / "model") and not verify(one)


def _build(ground: Ground, room: Path) -> list[str]:
    flags = ["--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--context", "256"]
    return ["build", *flags, "--weights", str(MODEL), "--out", str(room / "out")]


def _copy_cache(ground: Ground, room: Path) -> None:
    shutil.copytree(ground.cache, room.parent / f"{room.name}-cache", dirs_exist_ok=True)


def _copy_package(ground: Ground, room: Path) -> None:
    if not (room / "out").exists():
        shutil.copytree(ground.package, room / "out")


def _export(kind: str) -> Callable[[Ground, Path], list[str]]:
    return lambda ground, room: [
        *("export", str(ground.folder / "old"), "--format", kind, "--out", str(room / "out")),
        *("--allow-dummy", "--accept-license", "unstated"),
    ]


COMMANDS: tuple[Command, ...] = (
    Command("build", _build, same=_same_model, share=1, replaces=True),
    Command("package", _build, _copy_cache, same=_same_model, share=3, replaces=True),
    Command("export zip", _export("zip"), share=4),
    Command("export tar.zst", _export("tar.zst"), share=4),
    Command("export oci", _export("oci"), share=2),
    Command(
        "unpack zip",
        lambda g, room: ["unpack", str(g.folder / "old.zip"), "--out", str(room / "out")],
        share=4,
    ),
    Command(
        "unpack tar.zst",
        lambda g, room: ["unpack", str(g.folder / "old.tar.zst"), "--out", str(room / "out")],
        share=4,
    ),
    Command("pull", lambda g, room: ["pull", g.registry, "--out", str(room / "out")], share=4),
    Command(
        "patch",
        lambda g, room: [
            "patch",
            str(g.folder / "p.patch"),
            str(g.folder / "old"),
            "--out",
            str(room / "out"),
        ],
        share=4,
    ),
    Command(
        "bench",
        lambda g, room: ["bench", str(room / "out"), "--save"],
        _copy_package,
        same=_same_model,
        share=2,
        replaces=True,
    ),
)
"""The commands, each `share` times in so many."""


def environment(room: Path) -> dict[str, str]:
    """A cache of its own, no network, one attempt of each measurement."""
    return {
        **os.environ,
        "QWEN_PACK_CACHE": str(room.parent / f"{room.name}-cache"),
        "HF_HUB_OFFLINE": "1",
        "QWEN_PACK_ATTEMPTS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(room.parent),
    }


def start(
    command: Command, ground: Ground, room: Path, limits: Mapping[int, int] | None = None
) -> subprocess.Popen[bytes]:
    """The command in a process of its own group, under resource limits where given."""

    def limit() -> None:
        # Whoever starts the campaign in the background hands down that some are ignored.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for which, value in (limits or {}).items():
            resource.setrlimit(which, (value, value))

    return subprocess.Popen(
        [sys.executable, "-P", "-m", "packager.cli", *command.arguments(ground, room)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(room),
        cwd=room.parent,
        preexec_fn=limit,
        start_new_session=True,
    )


def listening(child: subprocess.Popen[bytes]) -> None:
    """Wait until the command answers signals: Python itself must have started."""
    until = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < until:
        with suppress(OSError), open(f"/proc/{child.pid}/status") as status:
            caught = next((line for line in status if line.startswith("SigCgt:")), "SigCgt: 0")
            if int(caught.split()[1], 16) & _SIGTERM_CAUGHT:
                return
        time.sleep(0.005)


def ended(child: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code and stderr of a command that is left alone."""
    try:
        _, errors = child.communicate(timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        _, errors = child.communicate()
        return -signal.SIGKILL, "did not end\n" + errors.decode(errors="replace")
    return child.returncode, errors.decode(errors="replace")


def right(command: Command, out: Path, reference: Path) -> bool:
    """Whether a result is the one that it should be."""
    try:
        return command.same(out, reference)
    except (PackError, OSError):
        return False


@contextmanager
def ground(folder: Path):  # type: ignore[no-untyped-def]
    """A Ground in an empty folder, with a registry that serves while the block runs."""
    from packager.shipping.delta import write_patch
    from packager.shipping.export import export
    from packager.shipping.oci import images
    from packager.shipping.shipment import prepare
    from tests.support.oci_registry import lying_registry

    weights = OLD["model/model.gguf"]
    large = (weights * (_MODEL_BYTES // len(weights) + 1))[:_MODEL_BYTES]
    old = write_files(folder / "old", {**OLD, "model/model.gguf": large})
    changed = large[: 1 << 20] + b"new" * 999 + large[2 << 20 :]
    new = write_files(folder / "new", {**NEW, "model/model.gguf": changed})
    finish(write_patch(old, new, folder / "p.patch", **AGREED))
    for kind in ("zip", "tar.zst"):
        finish(export(old, kind, folder / f"old.{kind}", **AGREED))
    image = images(prepare(old, **AGREED))[0]
    media = {"Content-Type": image.manifest.media_type}
    answers = {"/v2/a/b/manifests/t": (200, media, image.manifest.data or b"")}
    for blob in image.blobs:
        data = blob.data if blob.entry is None else (old / blob.entry.path).read_bytes()
        answers[f"/v2/a/b/blobs/{blob.digest}"] = (200, {}, data or b"")
    with lying_registry({**answers}) as host:
        place = Ground(folder, f"{host}/a/b:t")
        room = folder / "first"
        room.mkdir()
        code, errors = ended(start(COMMANDS[0], place, room))
        if code:
            raise RuntimeError(f"the build that all starts from ended with {code}: {errors}")
        (folder / "first-cache").rename(place.cache)
        (room / "out").rename(place.package)
        room.rmdir()
        yield place
