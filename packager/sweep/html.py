"""The report as one page of HTML: a table that sorts and filters, the plots, nothing from outside.

Every name is escaped where it is written. The page forbids itself everything but its own style and
script, which are named by their digests, so that a name could do nothing even unescaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from packager.escapes import html
from packager.sweep.folder import Run
from packager.sweep.table import Table

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem}
body{color:#24292f;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid #d0d7de;text-align:left;vertical-align:top}
td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer}
th button{color:inherit}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
input{font:inherit;padding:.3rem .6rem;width:22rem;max-width:100%}
svg{max-width:100%;height:auto;border:1px solid #d0d7de}
tr[hidden]{display:none}
"""
_SCRIPT = """
"use strict";
const table = document.querySelector("table");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
const value = (row, at) => row.cells[at].dataset.number ?? row.cells[at].textContent;
heads.forEach((head, at) => head.firstElementChild.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((one) => one.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numbers = head.dataset.kind === "number";
  const rows = [...body.rows].sort((one, other) => {
    const [left, right] = [value(one, at), value(other, at)];
    if (!numbers) return (down ? -1 : 1) * left.localeCompare(right);
    if (left === "" || right === "") return (left === "") - (right === "");
    return (down ? -1 : 1) * (Number(left) - Number(right));
  });
  body.append(...rows);
}));
const filter = document.querySelector("input");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});
"""


def page(run: Run, table: Table, sentences: Sequence[str], pictures: Mapping[str, str]) -> str:
    """The whole page of a run."""
    title = f"{run.file.name}: run {run.number}"
    policy = (
        f"default-src 'none'; style-src {_digest(_STYLE)}; script-src {_digest(_SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    plots = "".join(f"<h2>{html(target)}</h2>\n{picture}\n" for target, picture in pictures.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html(title)}</h1>\n"
        f"<p>Started {html(run.file.started)}, "
        f"{'finished ' + html(run.file.finished) if run.file.finished else 'not finished'}.</p>\n"
        + "".join(f"<p>{html(line)}</p>\n" for line in sentences)
        + '<p><label>Show rows with <input type="search" autocomplete="off"></label></p>\n'
        f"{_table(table)}\n{plots}<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _table(table: Table) -> str:
    kinds = [any(row[at] is not None for row in table.numbers) for at in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col" data-kind="{"number" if number else "text"}">'
        f'<button type="button">{html(name)}</button></th>'
        for name, number in zip(table.columns, kinds, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            _cell(text, value, number)
            for text, value, number in zip(cells, values, kinds, strict=True)
        )
        + "</tr>"
        for cells, values in zip(table.cells, table.numbers, strict=True)
    )
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _cell(text: str, value: float | None, number: bool) -> str:
    if not number:
        return f"<td>{html(text)}</td>"
    known = "" if value is None else repr(value)
    return f'<td class="number" data-number="{known}">{html(text)}</td>'
