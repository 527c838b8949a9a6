"""What can be done with a finished package, for the result and the shelf: verify, measure again,
export, open its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from packager.errors import PackError
from packager.units import human_bytes
from tui.screens.adapter import Adapter, AdapterScreen
from tui.screens.measuring import Busy, MeasuringScreen
from tui.widgets.problem import Problem

if TYPE_CHECKING:
    from packager.package.package import Package
    from packager.pipeline.adapter_package import AdapterPlan

VERIFY = Binding(
    "v",
    "verify",
    "Verify",
    id="package.verify",
    tooltip="Hash every file and compare with the manifest",
)
EXPORT = Binding(
    "e",
    "export",
    "Export",
    id="package.export",
    tooltip="As an archive, an OCI layout, or in pieces",
)


class Verified(Message):
    """The findings of a verification, one sentence each; none means whole."""

    def __init__(self, package: Package, findings: list[str]) -> None:
        super().__init__()
        self.package, self.findings = package, findings


class AdapterPlanned(Message):
    """An adapter is checked and can be built."""

    def __init__(self, plan: AdapterPlan, command: str) -> None:
        super().__init__()
        self.plan, self.command = plan, command


class PackageScreen(MeasuringScreen):
    """A screen with a package under the cursor; one piece of work at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "a",
            "adapter",
            "Adapter",
            id="package.adapter",
            tooltip="Build a LoRA adapter as a separate package for this one",
            show=False,
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._last_adapter: Adapter | None = None

    def action_adapter(self) -> None:
        """Ask which adapter, check it, and build it."""
        package = self.package
        if package is None:
            return

        def answered(adapter: Adapter | None) -> None:
            if adapter is None:
                return
            self._last_adapter = adapter
            self.query_one(Problem).clear()
            self._say(f"Checking {package.manifest.name} and the adapter")
            self._plan_adapter(package, adapter)

        self.app.push_screen(AdapterScreen(package.manifest.name, self._last_adapter), answered)

    @work(thread=True, exclusive=True, group="adapter")
    def _plan_adapter(self, package: Package, adapter: Adapter) -> None:
        try:
            plan = self.services.adapter_plan(
                self.services, package.path, adapter.location, adapter.weights
            )
            command = adapter.command(package.path, plan.out)
            self.post_message(AdapterPlanned(plan, command))
        except (PackError, OSError) as error:
            self._report(error)

    @on(AdapterPlanned)
    def _adapter_planned(self, message: AdapterPlanned) -> None:
        """Build it, unless the person went elsewhere meanwhile or something is measured."""
        from packager.pipeline.run import STAGES
        from tui.screens.build import BuildScreen

        if self._measured is None:
            self._say("")
        if not self.on_top:
            self.notify("a on the package builds it.", title=f"{message.plan.name} can be built")
        elif self.pack.may_measure(message.plan.name):
            titles = {name: STAGES[name] for name in ("fetch", "convert", "quality", "package")}
            self.app.push_screen(BuildScreen(message.plan, message.command, stages=titles))

    def action_verify(self) -> None:
        """Hash every file."""
        if self.package is not None:
            self.query_one(Problem).clear()
            self._say(f"Verifying {self.package.manifest.name}")
            self._verify(self.package)

    @work(thread=True, exclusive=True, group="verify")
    def _verify(self, package: Package) -> None:
        from packager.package.verify import verify

        def on_bytes(done: int, total: int) -> None:
            self.post_message(
                Busy(
                    f"Verifying {package.manifest.name}: {human_bytes(done)} of "
                    f"{human_bytes(total)} hashed"
                )
            )

        try:
            self.post_message(
                Verified(
                    package,
                    [
                        f"{problem.path} {problem.message}"
                        for problem in verify(package.path, on_bytes)
                    ],
                )
            )
        except (PackError, OSError) as error:
            self._report(error)

    @on(Verified)
    def _verified(self, message: Verified) -> None:
        name = message.package.manifest.name
        if self._measured is None:
            self._say("")
        if message.findings:
            self.query_one(Problem).show(
                f"{name} is not what its manifest says:", "\n".join(message.findings)
            )
        else:
            self.notify(
                f"{len(message.package.manifest.files)} files, every byte as the manifest says.",
                title=f"{name} is whole",
            )

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
