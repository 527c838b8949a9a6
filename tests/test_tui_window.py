"""The window and the settings: widths, the shelf at another width, themes, mistakes in the file,
pictures of the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES

from packager.errors import PackError
from targets import registry
from tests.support import tui_data as data
from tests.support.tiers import thorough
from tests.support.tui_helpers import drive, screen, settled, text_of, until
from tests.test_tui_pictures import CONVERTING, building
from tui.contrast import ratio
from tui.points import of_candidates
from tui.screens.build import BuildScreen
from tui.screens.candidates import CandidatesScreen
from tui.screens.compare import LEAST, CompareScreen, cut
from tui.screens.device import DeviceScreen
from tui.screens.need import NeedScreen
from tui.screens.pareto import ParetoScreen
from tui.screens.plan import PlanScreen
from tui.screens.result import ResultScreen
from tui.screens.settings import KeyList, SettingsScreen
from tui.screens.shelf import ShelfScreen
from tui.settings import Settings, config_file, keep_key
from tui.table import shortened
from tui.widgets.candidates import layout

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "sizes", [[(60, 20)], [(120, 36), (80, 24), (60, 20), (120, 36)]], ids=["started", "narrowed"]
)
def test_help_and_quit_stay_in_the_footer_at_every_width(sizes: list[tuple[int, int]]) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(CandidatesScreen(data.ASK))
        shown = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: shown.found, "the candidates")
        for size in sizes:
            await pilot.resize_terminal(*size)
            await until(
                pilot, lambda: "? Help" in text_of(pilot).splitlines()[-1], f"Help at {size}"
            )
            last = text_of(pilot).splitlines()[-1]
            assert "q Quit" in last and ("palette" in last) == (size[0] >= 100)

    drive(walk, data.services(), size=sizes[0])


def test_the_shelf_follows_a_resize_and_tells_two_packages_of_one_name_apart() -> None:
    twin = replace(data.SHELF[0], path=Path("/home/me/elsewhere") / data.SHELF[0].manifest.name)

    async def walk(pilot: Pilot[Any]) -> None:
        await pilot.press("s")
        shelf = await screen(pilot, ShelfScreen)
        await until(pilot, lambda: shelf.package, "the packages")
        assert "/home/me/elsewhere" in text_of(pilot) and "first token" in text_of(pilot)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "first token" not in text_of(pilot), "the narrow columns")
        assert "budgets" in text_of(pilot) and "…" in text_of(pilot)
        assert shelf.query_one("#packages").virtual_size.width <= 80

    drive(walk, data.services(packages=lambda _: (*data.SHELF, twin)), size=(160, 36))


def test_an_empty_shelf_offers_nothing_to_do_with_a_package() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        await pilot.press("s")
        await until(pilot, lambda: "Nothing on the shelf yet" in text_of(pilot), "the empty shelf")
        last = text_of(pilot).splitlines()[-1]
        assert "Delete" not in last and "Mark" not in last and "Back" in last

    drive(walk, data.services(packages=lambda _: ()))


def test_only_what_can_be_ranked_carries_a_star() -> None:
    one, two = data.SHELF[:2]
    longer = data.changed(two, workload={"use_case": "chat", "context": 1024})
    noisy = data.changed(two, measured={**two.manifest.data["measured"], "noisy": True})

    async def walk(pilot: Pilot[Any]) -> None:
        for packages, starred in (
            ((one, two), True),
            ((one, longer), False),
            ((one, noisy), False),
        ):
            pilot.app.push_screen(CompareScreen(packages))
            await screen(pilot, CompareScreen)
            await pilot.pause()
            row = next(line for line in text_of(pilot).splitlines() if "peak memory" in line)
            assert ("★" in row) is starred
            await pilot.press("escape")

    drive(walk, data.services())


def test_mistakes_in_the_settings_are_one_note_and_the_key_between_light_and_dark_comes_back() -> (
    None
):
    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        (note,) = pilot.app._notifications
        assert note.message.count("\n") == 3 and "4 mistakes" in note.title
        await pilot.press("f3", "f3")
        assert pilot.app.theme == "gruvbox"

    drive(walk, data.services(), settings=Settings("gruvbox", problems=("a", "b", "c", "d")))


def test_a_theme_that_is_chosen_is_there_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    from packager.cli.tui import settings

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.remembers = True
        pilot.app.theme = "dracula"
        await pilot.pause()

    drive(walk, data.services())
    assert settings().theme == "dracula"


def test_a_screenshot_is_saved_where_there_is_no_folder_for_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_downloads_path", lambda: tmp_path / "none")

    async def walk(pilot: Pilot[Any]) -> None:
        await screen(pilot, DeviceScreen)
        pilot.app.save_picture()
        await pilot.pause()

    drive(walk, data.services(folder=tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".svg"]


def test_two_recipes_never_look_the_same_in_a_narrow_table() -> None:
    recipes = {
        recipe.id
        for target in registry.targets()
        for runtime in registry.runtimes()
        if runtime.name in target.runtimes
        for recipe in runtime.recipes()
    }
    # What is left of 80 columns between the borders of the table and of the screen.
    cells = next(cells for column, cells, _ in layout(76) if column.key == "recipe")
    assert len(recipes) > 20
    assert len({shortened(name, cells) for name in recipes}) == len(recipes)
    assert len({cut("recipe", name, LEAST) for name in recipes}) == len(recipes)


def test_a_small_window_shows_what_a_step_is_for_and_breaks_no_row() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(PlanScreen(data.FOUND, data.CHOSEN))
        plan = await screen(pilot, PlanScreen)
        await until(pilot, lambda: plan.checked, "the plan")
        await settled(pilot)
        assert "$ " not in text_of(pilot) and "qwen-pack build --target" in text_of(pilot)
        assert "package in /home/me/packages" in text_of(pilot)
        await pilot.resize_terminal(60, 24)
        pilot.app.push_screen(ResultScreen(data.package()))
        await screen(pilot, ResultScreen)
        await settled(pilot)
        row = next(line for line in text_of(pilot).splitlines() if "peak memory" in line)
        assert "1.31 GB" in row and "1.27 GB" in row and "+3 %" in row
        before = building(*CONVERTING)
        pilot.app.push_screen(BuildScreen(data.PLAN, "", before))
        await screen(pilot, BuildScreen)
        await settled(pilot)
        lines = text_of(pilot).splitlines()
        places = [
            next(place for place, line in enumerate(lines) if stage.title in line)
            for stage in before.stages
        ]
        assert places == list(range(places[0], places[0] + len(before.stages)))

    drive(walk, data.services(), size=(80, 24))


def test_the_focused_part_takes_the_whole_window_and_gives_it_back() -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.push_screen(CandidatesScreen(data.ASK))
        shown = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: shown.found, "the candidates")
        for back in ("z", "f10", "escape"):
            await pilot.press("z")
            await settled(pilot)
            assert "Why" not in text_of(pilot) and "Qwen3-0.6B" in text_of(pilot)
            await pilot.press(back)
            await settled(pilot)
            assert "Why" in text_of(pilot) and pilot.app.screen is shown
        pilot.app.push_screen(NeedScreen(data.ASK))
        await screen(pilot, NeedScreen)
        # A line of a form brings its whole form along.
        await pilot.press("tab", "z")
        await settled(pilot)
        assert "Weights" in text_of(pilot) and "What is it for?" not in text_of(pilot)

    drive(walk, data.services())


def test_keys_and_theme_are_chosen_on_a_screen_hold_at_once_and_are_kept_with_the_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    file = config_file()
    file.parent.mkdir(parents=True)
    file.write_text('# mine\n[keys]\n"build.cancel" = "f9"  # by the window\n')

    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.remembers = True
        pilot.app.push_screen(CandidatesScreen(data.ASK))
        table = await screen(pilot, CandidatesScreen)
        await until(pilot, lambda: table.found, "the candidates")
        await pilot.press("f4")
        settings = await screen(pilot, SettingsScreen)
        lines = settings.query_one(KeyList)
        assert "theme" in text_of(pilot) and "textual-dark" in text_of(pilot)
        lines.highlighted = lines.get_option_index("app.help")
        await settled(pilot)
        assert "? f1" in text_of(pilot) and "question_mark" not in text_of(pilot)

        async def give(name: str, key: str) -> str:
            lines.highlighted = lines.get_option_index(name)
            await pilot.press("enter", key)
            await pilot.pause()
            return text_of(pilot)

        assert "q is the key of app.quit" in await give("candidates.plot", "q")
        assert "? is the key of app.help" in await give("candidates.plot", "question_mark")
        assert "Enter changes a line" in await give("candidates.plot", "escape")
        assert pilot.app.screen is settings
        assert "• f8" in await give("candidates.plot", "f8")
        await give("candidates.filter", "f7")
        await pilot.press("backspace", "escape", "f8")
        await screen(pilot, ParetoScreen)

    drive(walk, data.services())
    assert file.read_text() == (
        '# mine\n[keys]\n"candidates.plot" = "f8"\n"build.cancel" = "f9"  # by the window\n'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[keys]\n"plan.build" = "f9"\n'),
        ('theme = "nord"\n', 'theme = "nord"\n\n[keys]\n"plan.build" = "f9"\n'),
        ('[keys]\nplan.build = "x"\n', None),
        ('keys = {"build.cancel" = "f9"}\n', None),
        (
            "[keys]  # all\n'plan.build'='b'\n\"app.quit\" = \"f10\"\n",
            '[keys]  # all\n"plan.build" = "f9"\n"app.quit" = "f10"\n',
        ),
    ],
)
def test_a_key_is_one_line_of_the_file_and_another_form_is_left_to_its_owner(
    before: str, after: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "tui.toml"
    file.write_text(before)
    if after is None:
        with pytest.raises(PackError, match="in a form that is not changed here"):
            keep_key(file, "plan.build", "f9")
        assert file.read_text() == before
        return
    keep_key(file, "plan.build", "f9")
    assert file.read_text() == after
    keep_key(file, "plan.build", None)
    assert "plan.build" not in file.read_text()


@pytest.mark.parametrize("theme", [thorough("textual-light"), "textual-dark"])
def test_everything_on_the_row_of_a_cursor_can_be_read(theme: str) -> None:
    async def walk(pilot: Pilot[Any]) -> None:
        pilot.app.theme = theme
        await settled(pilot)
        ground = Color.parse(pilot.app.theme_variables["block-cursor-background"]).rgb
        for shown, keys in (
            (None, "j"),
            (NeedScreen(data.ASK), "Gkkk"),
            (CandidatesScreen(data.ASK), ""),
            (None, ","),
        ):
            if shown is not None:
                await pilot.app.push_screen(shown)
            await settled(pilot)
            await pilot.press(*keys.replace(",", "") or (["f4", "j"] if keys else []))
            await settled(pilot)
            seen = [
                (segment.text, Color(*segment.style.color.triplet))
                for strip in pilot.app.screen._compositor.render_strips()
                for segment in strip
                if segment.style is not None
                and segment.style.color is not None
                and segment.style.bgcolor is not None
                and segment.style.bgcolor.triplet == ground
                and segment.text.strip()
            ]
            assert seen
            low = [(text, colour) for text, colour in seen if ratio(colour, Color(*ground)) < 4.45]
            assert low == [], type(pilot.app.screen).__name__

    given = data.services(
        unserved=lambda: frozenset({"vision", "audio"}),
        find=lambda _, ask: replace(data.NOTHING, ask=ask),
    )
    drive(walk, given)


@pytest.mark.parametrize(
    "names",
    [
        ("textual-dark", "textual-light"),
        thorough(tuple(name for name, theme in BUILTIN_THEMES.items() if not theme.ansi)),
    ],
    ids=["two", "all"],
)
def test_every_word_of_a_screen_can_be_read_in_every_theme_that_is_offered(
    names: tuple[str, ...],
) -> None:
    """Placeholders, titles in borders and the letters of a plot too."""

    def faint(pilot: Pilot[Any]) -> list[tuple[str, str]]:
        return [
            (pilot.app.theme, segment.text)
            for strip in pilot.app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
            and segment.style.color is not None
            and segment.style.bgcolor is not None
            and any(letter.isalnum() for letter in segment.text)
            and ratio(
                Color(*segment.style.color.get_truecolor()),
                Color(*segment.style.bgcolor.get_truecolor()),
            )
            < 4.45
        ]

    async def walk(pilot: Pilot[Any]) -> None:
        low: set[tuple[str, str]] = set()
        # A plot is drawn in the same colours as the table: one theme of each kind shows it.
        for shown, themes in (
            (CandidatesScreen(data.ASK), names),
            (ParetoScreen(of_candidates(data.FOUND)), ("textual-dark", "textual-light", "nord")),
        ):
            await pilot.app.push_screen(shown)
            for name in themes:
                pilot.app.theme = name
                await settled(pilot)
                low |= set(faint(pilot))
        # What has the focus in a form, where an accent is hardest to read.
        await pilot.app.push_screen(NeedScreen(data.ASK))
        for selector in ("#weights", "#warm", "#limit-context"):
            pilot.app.screen.query_one(selector).focus()
            for name in ("textual-light", "solarized-light"):
                pilot.app.theme = name
                await settled(pilot)
                low |= set(faint(pilot))
        assert not low, sorted(low)

    drive(walk, data.services(find=lambda _, ask: replace(data.NOTHING, ask=ask)))
