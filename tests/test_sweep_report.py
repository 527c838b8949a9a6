"""What a sweep leaves to look at: rows, the runs of its folder, table, CSV, HTML, plot, history, routes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.package import manifest
from packager.pipeline.cache import BuildCache
from packager.records.base import without_nulls
from packager.sweep.asked import Compare
from packager.sweep.cell import Cell
from packager.sweep.chart import HEIGHT, WIDTH, Dot, Point, chart
from packager.sweep.folder import Folder, Run
from packager.sweep.front import Place
from packager.sweep.html import page
from packager.sweep.keeping import Keeper
from packager.sweep.report import as_csv, as_dict, plots, sentences, table, write
from packager.sweep.route import routes
from packager.sweep.row import Row, not_done
from packager.sweep.standing import standing
from packager.sweep.svg import svg
from tests.support import browser
from tests.support.contents import LEAST
from tests.support.make_package import body, write_package
from tests.support.sweep_rows import EVIL, MACHINE, row, run_of
from tests.support.sweeps import plan_of


class Collected(HTMLParser):
    """Tags with their attributes, and texts, of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_escapes_every_name_and_loads_nothing_from_outside() -> None:
    cell = Cell(EVIL, EVIL, EVIL, local=True)
    bad = not_done(cell, "failed", EVIL, 6)
    fine = row("a").but(cell=cell.to_json())
    run = run_of(bad, fine)
    text = page(
        run,
        table(run, {}),
        list(sentences(run, [])),
        {name: svg(one) for name, one in plots(run, {}).items()},
    )
    seen = Collected()
    seen.feed(text)
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert "alert(1)</script>" not in text
    for tag, attributes in seen.tags:
        assert not {"src", "href", "onclick", "style"} & set(attributes), tag
        assert tag not in ("link", "img", "iframe", "object"), tag
    policy = next(
        one["content"]
        for tag, one in seen.tags
        if tag == "meta" and "content" in one and "default" in str(one["content"])
    )
    assert str(policy).startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_script_and_the_style_of_the_page_are_the_ones_that_it_allows_itself() -> None:
    import base64
    import hashlib

    run = run_of(row())
    text = page(run, table(run, {}), [], {})
    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inner is not None
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text


def test_the_csv_has_plain_numbers_and_no_formulas() -> None:
    run = run_of(row("a"), not_done(Cell("=1+1", "@x", "-y", local=True), "failed", "+z"))
    rows = list(csv.DictReader(io.StringIO(as_csv(run, {row("a").id: Place(True)}))))
    assert rows[0]["artifact_bytes"] == "1000000000" and rows[0]["front"] == "true"
    assert rows[0]["kl_mean"] == "0.01"
    assert [rows[1][key] for key in ("variant", "recipe", "target", "reason")] == [
        "'=1+1",
        "'@x",
        "'-y",
        "'+z",
    ]


@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.floats(1, 1e13), st.floats(0, 1e6), st.booleans()),
        max_size=30,
    )
)
def test_the_plot_is_xml_whatever_it_shows_and_every_point_lies_in_it(rows: list[Any]) -> None:
    text = svg(chart("t<", [Point(*one) for one in rows]))
    # XML has no way to write control characters: names are printable before they come here.
    printable = "".join(char for char in text if char.isprintable() or char == "\n")
    root = ET.fromstring(printable)
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    assert len(circles) == len(rows)
    for circle in circles:
        assert 70 <= float(circle.attrib["cx"]) <= 700 and 40 <= float(circle.attrib["cy"]) <= 370


def test_points_of_another_machine_are_not_in_the_plot() -> None:
    other = {**MACHINE, "processor": "Q"}
    (one,) = plots(run_of(row("a"), row("b"), row("c", machine=other)), {}).values()
    text = svg(one)
    assert text.count("<circle") == 2


def test_the_table_has_built_cells_first_and_says_what_became_of_the_others() -> None:
    cell = Cell("Qwen/z", "plain:b8", "big")
    dropped = not_done(cell, "dropped", "3 of 6 go on", rung="size")
    run = run_of(dropped, row("a", noisy=True, package=None, manifest="manifests/a.json"))
    cells = table(run).cells
    assert cells[0][-1] == "manifest only, noisy"
    assert cells[1][-1] == "dropped at the rung 'size': 3 of 6 go on"
    assert "1 of 2 cells were built, 1 dropped by pruning." in list(sentences(run, []))
    assert as_dict(run)["cells"][1]["rung"] == "size"


def packaged(folder: Folder, name: str, repo_id: str, size: int, **more: Any) -> Row:
    """A row whose package is there, as far as a manifest goes."""
    found = row(name, figures={"artifact_bytes": float(size)})
    path = folder.packages / found.id
    path.mkdir(parents=True)
    data = {
        **LEAST,
        "schema": manifest.SCHEMA,
        "name": name,
        "variant": {"repo_id": repo_id},
        "source": {"kind": "hub"},
        "artifact_bytes": size,
        **more,
    }
    manifest.write(path, data)
    return found.but(dummy=data["source"]["kind"] == "dummy")


def built(folder: Folder, name: str, memory: float, speed: float) -> Row:
    """A row whose package is whole, of one variant in several recipes."""
    cell = Cell("Qwen/Qwen3-0.6B", f"plain:{name}", "big", "default", 512)
    path = write_package(folder.packages / cell.id)
    measured = {"peak_memory_bytes": memory, "decode_tps": speed, "machine": MACHINE}
    manifest.write(path, {**body(path), "measured": measured})
    return row().but(id=cell.id, cell=without_nulls(cell.to_json()), package=f"packages/{cell.id}")


def test_of_the_packages_of_one_variant_those_that_another_beats_go_down_to_their_manifest(
    tmp_path: Path,
) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    keeper = Keeper(replace(plan, keep_packages="best"), folder, BuildCache(), {})
    rows: dict[str, Row] = {}
    said = []
    for name, memory, speed in (("a", 100, 5), ("b", 200, 9), ("c", 90, 6)):
        found = built(folder, name, memory, speed)
        rows[found.id] = found
        said += list(keeper.thin(rows, found))
    assert len(said) == 1 and "plain:a" in said[0] and "plain:c" in said[0]
    (changed,) = keeper.changed()
    assert changed.package is None and folder.is_there(changed)
    assert not (folder.packages / changed.id).exists()
    assert (folder.manifests / f"{changed.id}.json").is_file()
    # A package that somebody has added to stays where it is.
    kept = next(one for one in rows.values() if "plain:b" in one.of.recipe)
    (folder.packages / kept.id / "mine.txt").write_text("mine")
    keeper.drop(kept)
    assert keeper.changed() == [] and (folder.packages / kept.id / "mine.txt").is_file()


@pytest.mark.skipif(
    browser.program() is None, reason="needs a Chromium: " + ", ".join(browser.PROGRAMS)
)
def test_the_page_sorts_and_filters_in_a_browser_and_asks_for_nothing(tmp_path: Path) -> None:
    rows = [
        row("Alpha", figures={"decode_tps": 9.0}),
        row("beta", figures={"decode_tps": 100.0}),
        row("gamma", figures={"decode_tps": 20.0}).but(missed=("size: 3 of 2",)),
        not_done(Cell("delta", EVIL, "big"), "failed", "No room."),
    ]
    run = run_of(*rows)
    (tmp_path / "page.html").write_text(page(run, table(run), [EVIL], {}), "utf-8")
    title = "[...document.querySelectorAll('th')].find(one => one.textContent == %r)"
    shown = (
        "[...document.querySelectorAll('tbody tr')].filter(one => one.offsetParent)"
        ".map(one => one.cells[0].textContent.split(' ')[0].toLowerCase()).join(' ')"
    )

    async def visit() -> None:
        async with browser.Browser(tmp_path / "profile") as open_page:
            await open_page.open((tmp_path / "page.html").as_uri())
            await open_page.until("document.readyState == 'complete' && document.title != ''")
            for name, up, down in (
                ("decode", "alpha gamma beta delta", "beta gamma alpha delta"),
                ("cell", "alpha beta delta gamma", "gamma delta beta alpha"),
            ):
                for order, said in ((up, "ascending"), (down, "descending"), (up, "ascending")):
                    await open_page.evaluate(f"{title % name}.querySelector('button').click()")
                    assert await open_page.evaluate(shown) == order
                    sort = await open_page.evaluate(f"{title % name}.getAttribute('aria-sort')")
                    assert sort == said
            await open_page.evaluate("document.querySelector('input').focus()")
            await open_page.press("MISSES siz")
            await open_page.until(f"{shown} == 'gamma'")
            await open_page.evaluate("document.querySelector('input').select()")
            await open_page.press("no such")
            await open_page.until(f"{shown} == ''")
            # Names of the plan are text, and nothing came from outside.
            assert await open_page.evaluate("document.querySelectorAll('script').length") == 1
            asked = [url for url in open_page.asked if not url.startswith(("file:", "data:"))]
            assert asked == []

    asyncio.run(visit())


def test_each_kind_of_task_is_routed_to_the_smallest_package_that_passes_its_floor(
    tmp_path: Path,
) -> None:
    plan = plan_of(
        '[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]\n[route]\ntasks=["chat", "code"]\nbehaviour_percent=80',
        tmp_path,
    )
    folder = Folder.made(tmp_path / "out", plan)
    small = packaged(folder, "small", "Qwen/Qwen3-0.6B", 100)
    large = packaged(folder, "large", "Qwen/Qwen3-32B", 900)
    random = packaged(folder, "random", "Qwen/Qwen3-32B", 50, source={"kind": "dummy"})
    lost = packaged(folder, "lost", "Qwen/Qwen3-32B", 60).but(gate=False)
    tried = {"passed": 10, "total": 38, "set": "s"}
    silly = packaged(folder, "silly", "Qwen/Qwen3-32B", 70, behaviour=tried)
    own = packaged(folder, "own", "local/own", 80)
    found = routes(folder, run_of(small, large, random, lost, silly, own), plan)
    assert found["schema"] == "qwen-pack/route/1"
    assert set(found["routes"]["big"]) == {"chat", "code"}
    chosen = found["routes"]["big"]["code"]
    assert chosen["cell"] == large.id and chosen["package"] == large.package
    assert chosen["evidence"]["published"]
    assert found["routes"]["big"]["chat"]["variant"] in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-32B")
    nothing = routes(folder, run_of(random, own), plan)
    assert nothing["routes"]["big"]["chat"] is None
    assert "no published score" in nothing["unserved"]["big"]["chat"]
    assert "random" in routes(folder, run_of(random), plan)["unserved"]["big"]["chat"]


def test_a_fine_tune_is_routed_by_the_tasks_that_it_passed(tmp_path: Path) -> None:
    plan = plan_of(
        '[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]\n[route]\ntasks=["chat"]\nbehaviour_percent=80',
        tmp_path,
    )
    folder = Folder.made(tmp_path / "out", plan)
    tried = {"passed": 36, "total": 38, "set": "s"}
    own = packaged(folder, "own", "local/own", 80, behaviour=tried)
    found = routes(folder, run_of(own), plan)
    assert found["routes"]["big"]["chat"]["cell"] == own.id


def test_the_report_is_written_whole_and_again(tmp_path: Path) -> None:
    plan = plan_of('[axes]\nvariants=["Qwen3-0.6B"]\ntargets=["big"]', tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    run, _ = folder.begin(plan)
    folder.add(
        run,
        packaged(
            folder,
            "small",
            "Qwen/Qwen3-0.6B",
            100,
            measured={"decode_tps": 3, "peak_memory_bytes": 9},
        ),
    )
    for _ in range(2):
        files = write(folder, folder.runs(), plan)
        extra = {"pareto-1.png": "PIL", "table.parquet": "pyarrow"}
        assert {one.name for one in files} == {
            "index.html",
            "pareto-1.svg",
            "route.json",
            "sweep.json",
            "table.csv",
            *(name for name, package in extra.items() if find_spec(package) is not None),
        }
    data = json.loads((tmp_path / "out" / "report" / "sweep.json").read_text())
    assert data["schema"] == "qwen-pack/sweep-report/1"
    assert data["cells"][0]["on_front"] is True
    assert data["runs"][0]["failures"] == {}


def test_the_picture_is_the_same_as_png_and_points_of_the_front_are_blue() -> None:
    pytest.importorskip("PIL", reason="needs the extra `report`")
    from PIL import Image

    from packager.sweep.png import png

    drawn = chart("t", [Point("a", 1e9, 10.0, True), Point("b", 2e9, 20.0, True)])
    image = Image.open(io.BytesIO(png(drawn)))
    assert image.size == (2 * WIDTH, 2 * HEIGHT)
    for dot in (shape for shape in drawn.shapes if isinstance(shape, Dot)):
        assert image.getpixel((round(2 * dot.x), round(2 * dot.y))) == (9, 105, 218)
    assert png(drawn) == png(drawn)
    png(chart("nothing", []))


def test_parquet_has_the_columns_of_the_csv_with_their_types() -> None:
    pytest.importorskip("pyarrow", reason="needs the extra `report`")
    import pyarrow.parquet as pq

    from packager.sweep.parquet import parquet

    run = run_of(row("a"), not_done(Cell("b", "r", "t", lora=("x", "y")), "failed", "No."))
    kept = pq.read_table(io.BytesIO(parquet(run, {row("a").id: Place(True)}))).to_pylist()
    assert kept[0]["artifact_bytes"] == 10**9 and kept[0]["front"] is True
    assert kept[1]["lora"] == "x + y" and kept[1]["decode_tps"] is None
    assert kept[1]["reason"] == "No." and kept[1]["context"] is None
    lines = csv.DictReader(io.StringIO(as_csv(run, {})))
    assert set(next(lines)) <= set(kept[0])


def test_two_candidates_stand_side_by_side_in_every_run_and_who_is_ahead_since_when() -> None:
    def pair(number: int, **slower: Any) -> Run:
        one, other = row("a"), row("b")
        return replace(run_of(one, row("b", figures={**other.figures, **slower})), number=number)

    asked = Compare(name="a or b", one={"variant": "a"}, other={"variant": "b"})
    runs = [pair(1), pair(2, decode_tps=20.0), pair(3, decode_tps=25.0)]
    (found,) = standing(runs, [asked])
    assert (found.verdict, found.since) == ("one", 2)
    assert found.figures["decode_tps"] == "one" and found.figures["kl_mean"] == "equal"
    assert [verdict for _, verdict in found.runs] == ["equal", "one", "one"]
    assert found.sentence().startswith("a or b: a plain:b8 context 512 for big is better in ")
    assert found.sentence().endswith(" (since run 2).")
    mixed = pair(4, decode_tps=25.0, artifact_bytes=5e8)
    assert standing([mixed], [asked])[0].verdict == "mixed"
    nobody = Compare(name="n", one={"variant": "a"}, other={"variant": "zzz"})
    assert standing(runs, [nobody]) == []


def test_a_report_that_is_written_again_knows_what_the_plan_asked(tmp_path: Path) -> None:
    text = """
[axes]
variants = ["Qwen3-0.6B", "Qwen3-1.7B"]
targets = ["big"]
[route]
tasks = ["chat"]
behaviour_percent = 80
[[compare]]
name = "small or large"
one = {variant = "Qwen3-0.6B"}
other = {variant = "Qwen3-1.7B"}
"""
    plan = plan_of(text, tmp_path)
    folder = Folder.made(tmp_path / "out", plan)
    run, _ = folder.begin(plan)
    assert folder.asked(run).compare == plan.compare != ()
    write(folder, [run])
    again = json.loads((tmp_path / "out" / "report" / "route.json").read_text())
    write(folder, [run], plan)
    assert json.loads((tmp_path / "out" / "report" / "route.json").read_text()) == again
    assert folder.asked(run).tasks == ("chat",)
