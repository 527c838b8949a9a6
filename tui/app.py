"""The application: themes, global keys, the palette, and the first screen. What happens on a screen
is the screen's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType

from packager.escapes import bare
from tui.changed_cells import ChangedCells
from tui.contrast import readable
from tui.settings import Settings, config_file, keep_theme
from tui.stylesheet import ParsedOnce

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.dom import DOMNode
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from tui.ask import Ask
    from tui.screens.reach import Place
    from tui.services import Services
    from tui.table import View

LEAST = (60, 20)
"""Columns and rows below which no screen can be read."""


class PackApp(App[int]):
    """The walkthrough. `services` is all it knows of the world outside the core."""

    TITLE = "qwen-pack"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    # Textual declares these two in a way that type checkers take for instance variables.
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (LEAST[0], "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (LEAST[1], "-short"), (32, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "question_mark,f1", "help", "Help", id="app.help", tooltip="Every key of this screen"
        ),
        Binding(
            "s,f2",
            "shelf",
            "Shelf",
            id="app.shelf",
            tooltip="The packages built so far",
            show=False,
        ),
        Binding(
            "S,f6",
            "sweeps",
            "Sweeps",
            id="app.sweeps",
            tooltip="Build and measure a matrix from a plan file; what past ones found",
            show=False,
        ),
        Binding(
            "ctrl+o",
            "jump",
            "Jump",
            id="app.jump",
            tooltip="Go to a part of the screen by a letter",
            show=False,
        ),
        Binding(
            "z,f10",
            "one_pane",
            "One part",
            id="app.pane",
            tooltip="Give the whole window to the focused part; the same key gives it back",
            show=False,
        ),
        Binding(
            "f4,comma",
            "settings",
            "Settings",
            id="app.settings",
            tooltip="Choose the theme and other keys; they are kept",
            show=False,
        ),
        Binding(
            "f3",
            "other_theme",
            "Light or dark",
            id="app.theme",
            tooltip="Switch between a light and a dark theme",
            show=False,
        ),
        Binding(
            "q",
            "leave",
            "Quit",
            id="app.quit",
            tooltip="Leave; asks while a build or an export runs",
        ),
    ]

    def __init__(self, services: Services, settings: Settings | None = None) -> None:
        super().__init__()
        self.stylesheet = ParsedOnce(variables=self.get_css_variables())
        self.services = services
        self.settings = settings or Settings()
        self.measuring = ""
        """What is being measured, empty where nothing is: a second measurement beside it would
        spoil both."""
        self.forms: dict[Path, object] = {}
        """What was filled in for the export of a package, so that a way back and forth forgets
        nothing."""
        self.need: tuple[Ask, View | None] | None = None
        """What was wished last, with the filter and order of its table: another device is asked the
        same."""
        self.made: list[Path] = []
        """Packages that were built, named again in the terminal after the end."""
        self.last_place: Place | None = None
        """The other machine on which a package was measured last."""
        self.remembers = False
        """Whether a theme that is chosen is written into the settings; tests and pictures leave
        them alone."""
        self._dark, self._light = "textual-dark", "textual-light"
        self._terminal = ChangedCells()

    def on_mount(self) -> None:
        """Take the person's settings, then show the first step."""
        if self.settings.theme:
            self.theme = self.settings.theme
            if self.current_theme.dark:
                self._dark = self.theme
            else:
                self._light = self.theme
        self.set_keymap(dict(self.settings.keys))
        if self.settings.problems:
            several = (
                f" ({len(self.settings.problems)} mistakes)"
                if len(self.settings.problems) > 1
                else ""
            )
            text = "\n".join(self.settings.problems)
            self.notify(
                text,
                title=f"{config_file()}{several}",
                severity="warning",
                timeout=12,
            )
        self.watch(self, "theme", self._keep_theme, init=False)
        self.push_screen(self.first_screen())

    def _keep_theme(self, theme: str) -> None:
        """Remember a theme that was chosen by hand, for the next start and for the key between
        light and dark."""
        if self.current_theme.dark:
            self._dark = theme
        else:
            self._light = theme
        if not self.remembers:
            return
        try:
            keep_theme(config_file(), theme)
        except OSError as error:
            self.notify(f"The theme is not kept: {error}.", severity="warning")

    def first_screen(self) -> Screen[None]:
        """Where the walkthrough begins."""
        from tui.screens.device import DeviceScreen

        return DeviceScreen()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action that has a key here, and the themes."""
        from tui.bindings import described
        from tui.screens.base import StepScreen
        from tui.widgets.steps import NAMES

        for row in described(screen):
            key = self.get_key_display(row.binding)
            yield SystemCommand(
                row.title, f"{row.binding.tooltip or row.binding.description} ({key})", row.run
            )
        for number, name in enumerate(NAMES, 1):
            if isinstance(screen, StepScreen) and number < screen.STEP:
                yield SystemCommand(
                    f"Step {number}: {name}",
                    "Back to this step, with what was chosen there",
                    partial(screen.to_step, number),
                )
        yield SystemCommand(
            "Theme", "Choose among all themes, light, dark and ANSI", self.action_change_theme
        )
        yield SystemCommand("Screenshot", "Save this screen as an SVG", self.save_picture)

    def save_picture(self) -> None:
        """Save the screen as an SVG: in the downloads where there are any, else in the folder of
        the walkthrough."""
        if self.is_web:
            self.deliver_screenshot()
            return
        from platformdirs import user_downloads_path

        reason = "there is no folder to write to"
        for folder in (user_downloads_path(), self.services.folder.absolute()):
            if folder.is_dir():
                try:
                    self.notify(self.save_screenshot(path=str(folder)), title="Screenshot saved")
                    return
                except OSError as error:
                    reason = f"{error}"
        self.notify(f"The screenshot was not saved: {reason}.", severity="error")

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        """A key that the settings gave to two actions: say so once."""
        names = ", ".join(sorted(str(binding.id) for binding in clashed_bindings))
        self.notify(
            f"One key is bound to several actions: {names}. The first wins.",
            title="tui.toml",
            severity="warning",
        )

    def action_help(self) -> None:
        """Every key of the screen below."""
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_shelf(self) -> None:
        """The packages built so far; comes back to where one was."""
        from tui.screens.shelf import ShelfScreen

        if not any(isinstance(screen, ShelfScreen) for screen in self.screen_stack):
            self.push_screen(ShelfScreen())

    def action_sweeps(self) -> None:
        """Plan files and past sweeps; comes back to where one was."""
        from tui.screens.sweeps import SweepsScreen

        if not any(isinstance(screen, SweepsScreen) for screen in self.screen_stack):
            self.push_screen(SweepsScreen())

    def action_jump(self) -> None:
        """Letters over every part that can be focused."""
        from tui.screens.jump import JumpScreen

        if not self.screen.is_modal:
            self.push_screen(
                JumpScreen(self.screen),
                lambda widget: widget.focus() if widget is not None else None,
            )

    def action_settings(self) -> None:
        """Theme and keys."""
        from tui.screens.settings import SettingsScreen

        if not self.screen.is_modal:
            self.push_screen(SettingsScreen(self.screen))

    def rebind(self, name: str, key: str | None) -> str:
        """Give an action another key, None its own again, and keep that; why not, or nothing."""
        from packager.errors import PackError
        from tui.bindings import all_keys
        from tui.settings import clash, keep_key

        keys = {**self.settings.keys, **({name: key} if key is not None else {})}
        if key is None:
            keys.pop(name, None)
        why_not = "" if key is None else clash(name, key, keys, all_keys())
        if why_not:
            return why_not
        try:
            if self.remembers:
                keep_key(config_file(), name, key)
        except (OSError, PackError) as error:
            return f"{error}"
        self.settings = replace(self.settings, keys=keys)
        self.set_keymap(keys)
        return ""

    def action_one_pane(self) -> None:
        """The list, table, log or form that has the focus over the whole window, and back."""
        from textual.containers import VerticalScroll
        from textual.scroll_view import ScrollView
        from textual.widget import Widget

        screen = self.screen
        if screen.maximized is not None:
            screen.minimize()
        elif screen.focused is not None and not screen.is_modal:
            # A line of a form brings its whole form along.
            around = (screen.focused, *screen.focused.ancestors)
            part = next(
                (widget for widget in around if isinstance(widget, VerticalScroll | ScrollView)),
                None,
            )
            if isinstance(part, Widget):
                screen.maximized = part

    def action_other_theme(self) -> None:
        """From a light theme to a dark one, and back."""
        pairs = {"ansi-dark": "ansi-light", "ansi-light": "ansi-dark"}
        self.theme = pairs.get(self.theme, self._light if self.current_theme.dark else self._dark)

    def action_leave(self) -> None:
        """Quit at once, or ask where a build or an export is at work."""
        from tui.screens.base import StepScreen

        running = next(
            (
                screen
                for screen in self.screen_stack
                if isinstance(screen, StepScreen) and screen.busy
            ),
            None,
        )
        if running is None:
            self.exit(0)
            return
        running.ask_to_leave()

    def get_css_variables(self) -> dict[str, str]:
        """The theme's colours, made readable; the terminal's own sixteen are the person's."""
        variables = super().get_css_variables()
        if self.current_theme.ansi:
            return variables
        self.theme_variables = readable(variables)
        return self.theme_variables

    def on_resize(self) -> None:
        """The terminal has moved its text about."""
        self._terminal.forget()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Write only the cells that changed."""
        if isinstance(renderable, LayoutUpdate | ChopsUpdate) and not self.is_inline:
            renderable = self._terminal.of(renderable)  # type: ignore[assignment]
        super()._display(screen, renderable)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Tell something for a while. Never markup: names of files and packages stand in it."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    async def action_quit(self) -> None:
        """Textual's own ctrl+q asks as well."""
        self.action_leave()

    def may_measure(self, what: str) -> bool:
        """Take the machine for one measurement; False, and a sentence, where another one has it."""
        if self.measuring:
            self.notify(
                f"{self.measuring} is being measured or built; two at once would spoil both.",
                severity="warning",
            )
            return False
        self.measuring = what
        return True

    def tell_the_desktop(self, text: str) -> None:
        """Ring, and ask the terminal for a notification, for somebody who went away: the terminals
        that know none ignore it."""
        self.bell()
        if self._driver is not None and not self.is_headless and not self.is_web:
            self._driver.write(f"\x1b]9;{bare(text)}\x07")

    def copy(self, text: str, what: str) -> None:
        """Put a text on the clipboard and say so."""
        self.copy_to_clipboard(text)
        self.notify(f"Copied: {what}", timeout=3)
