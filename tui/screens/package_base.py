"""What can be done with a finished package, for the result and the shelf: verify, measure again,
export, open its folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message

from packager.errors import PackError, from_foreign
from packager.events import StageProgress
from packager.units import human_bytes
from tui.screens.base import Failed, Problem, StepScreen
from tui.screens.figures_dialog import FiguresScreen

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.records import Measurement


class Busy(Message):
    """How far the work on a package is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def can_replace(self, message: Message) -> bool:
        """Only the newest counts."""
        return isinstance(message, Busy)


class Verified(Message):
    """The findings of a verification, one sentence each; none means whole."""

    def __init__(self, package: Package, findings: list[str]) -> None:
        super().__init__()
        self.package, self.findings = package, findings


class Benched(Message):
    """New figures of a package, beside the manifest's."""

    def __init__(self, package: Package, figures: Measurement) -> None:
        super().__init__()
        self.package, self.figures = package, figures


class PackageScreen(StepScreen):
    """A screen with a package under the cursor; one piece of work at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._stop = threading.Event()

    @property
    def package(self) -> Package | None:
        """The package that keys act on; None where there is none."""
        raise NotImplementedError

    def on_unmount(self) -> None:
        """A benchmark does not outlive its screen."""
        self._stop.set()

    def action_verify(self) -> None:
        """Hash every file."""
        if self.package is not None:
            self.query_one(Problem).clear()
            self.sub_title = "verifying"
            self._verify(self.package)

    @work(thread=True, exclusive=True, group="package")
    def _verify(self, package: Package) -> None:
        from packager.package.verify import verify

        def on_bytes(done: int, total: int) -> None:
            self.post_message(Busy(f"{human_bytes(done)} of {human_bytes(total)} hashed"))

        try:
            self.post_message(
                Verified(
                    package, [f"{one.path} {one.message}" for one in verify(package.path, on_bytes)]
                )
            )
        except (PackError, OSError) as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        known = from_foreign(error)
        if known is None:
            raise error
        self.post_message(Failed(known))

    @on(Verified)
    def _verified(self, message: Verified) -> None:
        name = message.package.manifest.name
        if message.findings:
            self.query_one(Problem).show(
                f"{name} is not what its manifest says:", "\n".join(message.findings)
            )
        else:
            self.notify(
                f"{len(message.package.manifest.files)} files, every byte as the manifest says.",
                title=f"{name} is whole",
            )

    def action_bench(self) -> None:
        """Measure again, in a process of its own."""
        if self.package is not None:
            self.query_one(Problem).clear()
            self._stop.clear()
            self.notify(
                "Every file is checked, then the model is loaded and measured.",
                title=f"Measuring {self.package.manifest.name}",
            )
            self._bench(self.package)

    @work(thread=True, exclusive=True, group="package")
    def _bench(self, package: Package) -> None:
        try:
            events = self.services.bench(self.services, package.path)
            try:
                while not self._stop.is_set():
                    event = next(events)
                    if isinstance(event, StageProgress):
                        self.post_message(Busy(f"{event.done} of {event.total} {event.unit}"))
            except StopIteration as stop:
                self.post_message(Benched(package, stop.value))
            finally:
                events.close()
        except (PackError, OSError) as error:
            self._report(error)

    @on(Benched)
    def _benched(self, message: Benched) -> None:
        self.app.push_screen(FiguresScreen(message.package, message.figures))

    @on(Failed)
    def _work_failed(self, message: Failed) -> None:
        self.query_one(Problem).show(message.error.message, message.error.hint)

    def action_export(self) -> None:
        """To the last step of the walkthrough."""
        from tui.screens.export import ExportScreen

        if self.package is not None:
            self.app.push_screen(ExportScreen(self.package))

    def action_open(self) -> None:
        """Show the folder in the file manager of the desktop; where there is none the path is
        copied."""
        if self.package is None:
            return
        if not open_folder(self.package.path):
            self.pack.copy(str(self.package.path), "the path, as no file manager was found")


def open_folder(path: Path) -> bool:
    """Start the desktop's file manager; False where there is no desktop."""
    import os
    import shutil
    import subprocess
    import sys

    if sys.platform == "win32":
        os.startfile(path)
        return True
    program = "open" if sys.platform == "darwin" else "xdg-open"
    desktop = (
        sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not desktop or shutil.which(program) is None:
        return False
    subprocess.Popen(
        [program, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True
