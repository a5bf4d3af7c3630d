"""A report as a list of blocks, written as Markdown and as one HTML page without external resources."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_CHARACTERS = 60
"""Characters in a row of a table that shares its place on the page with another table."""
SHORT = 14
"""Characters of a row's name up to which it is never divided into lines."""


@dataclass(frozen=True)
class Text:
    """A paragraph. strong: Emphasise it. Text between backticks is code, text between ** is bold."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: Column names.
        rows: Cells; the first column is the row's name.
        caption: Text above the table.
        marked: Numbers of emphasised rows.
        prose: Whether the last column is text, which is left-aligned and wrapped.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Sequence[int] = ()
    prose: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: Name of the PNG file, and beginning of the ids of the SVG.
        svg: For HTML, its text in the page's colour.
        png: For Markdown.
        caption: Text below the figure.
        numbers: What the numbered labels of the PNG are, as `[1] is ...`; empty without numbered labels.
    """

    name: str
    svg: str
    png: bytes
    caption: str
    numbers: str = ""


@dataclass(frozen=True)
class Card:
    """One item. about: small text below the title. picture: a data URL or "". badges: labels. marked: emphasised."""

    title: str
    about: str = ""
    picture: str = ""
    badges: Sequence[str] = ()
    marked: bool = False


@dataclass(frozen=True)
class Profile:
    """One user. lists: items by heading. notes: sentences below them, as (heading, text); the heading may be empty."""

    title: str
    lists: Sequence[tuple[str, Sequence[Card]]]
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Gallery:
    """Users with their items."""

    profiles: Sequence[Profile]


Block = Text | Bullets | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; the first section of a report has no heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def write_page(title: str, sections: Sequence[Section], folder: Path) -> Path:
    """Write report.html, report.md and figures/ into a folder, which is created if it is missing.

    Returns:
        The path of report.html.
    """
    figures = folder / "figures"
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Picture):
            figures.mkdir(parents=True, exist_ok=True)
            (figures / f"{block.name}.png").write_bytes(block.png)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(as_markdown(title, sections), encoding="utf-8")
    (folder / "report.html").write_text(as_html(title, sections), encoding="utf-8")
    return folder / "report.html"


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown; figures are links to figures/NAME.png."""
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""] if section.title else []
        for block in section.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines)


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [f"**{block.text}**" if block.strong else block.text]
    if isinstance(block, Bullets):
        return [f"- {line}" for line in block.lines]
    if isinstance(block, Table):
        rows = [[cell.replace("|", "\\|") for cell in row] for row in block.rows]
        marked = [[f"**{cell}**" for cell in row] if n in block.marked else row for n, row in enumerate(rows)]
        caption = [block.caption, ""] if block.caption else []
        rule = "|" + "---|" * len(block.header)
        return [*caption, _line(block.header), rule, *(_line(row) for row in marked)]
    if isinstance(block, Picture):
        below = f"{block.caption} {block.numbers}." if block.numbers else block.caption
        return [f"![{block.caption}](figures/{block.name}.png)", "", below]
    return [line for profile in block.profiles for line in _markdown_profile(profile)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_profile(profile: Profile) -> list[str]:
    lists = [f"- {name}: {'; '.join(map(_markdown_card, cards)) or 'none'}" for name, cards in profile.lists]
    notes = [f"- {_labelled(*note)}" for note in profile.notes]
    return [f"**{profile.title}**", "", *lists, *notes, ""]


def _markdown_card(card: Card) -> str:
    badges = f" ({', '.join(card.badges)})" if card.badges else ""
    return f"**{card.title}**{badges}" if card.marked else f"{card.title}{badges}"


def _labelled(heading: str, text: str) -> str:
    return f"{heading}: {text}" if heading else text


def as_html(title: str, sections: Sequence[Section]) -> str:
    """Return the report as one HTML page."""
    body = []
    for section in sections:
        heading = f"<h2>{_text(section.title)}</h2>" if section.title else ""
        body.append(f"<section>{heading}{_blocks(section.blocks)}</section>")
    return PAGE.replace("{title}", html.escape(title)).replace("{body}", "\n".join(body))


def _blocks(blocks: Sequence[Block]) -> str:
    """Return the HTML of blocks. Successive figures, and successive tables, share a row if the page is wide enough."""
    parts = []
    for kind, group in itertools.groupby(blocks, key=type):
        inside = [_html(block) for block in group]
        side_by_side = {Picture: "figures", Table: "tables"}.get(kind)
        joined = "\n".join(inside)
        parts.append(f'<div class="{side_by_side}">{joined}</div>' if side_by_side and len(inside) > 1 else joined)
    return "\n".join(parts)


def _html(block: Block) -> str:
    if isinstance(block, Text):
        return f'<p class="strong">{_text(block.text)}</p>' if block.strong else f"<p>{_text(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in block.lines) + "</ul>"
    if isinstance(block, Table):
        return _html_table(block)
    if isinstance(block, Picture):
        svg = block.svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(block.caption)}" ', 1)
        return f"<figure>{svg}<figcaption>{_text(block.caption)}</figcaption></figure>"
    return "".join(_html_profile(profile) for profile in block.profiles)


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    rows = "".join(_row(row, number in table.marked) for number, row in enumerate(table.rows))
    caption = f'<p class="caption">{_text(table.caption)}</p>' if table.caption else ""
    style = ' class="prose"' if table.prose else ""
    body = f"<table{style}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    words = [max(map(len, re.split("[ -]", name))) for name in table.header]  # a heading is divided between its words
    cells = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
    wide = ' class="wide"' if sum(map(max, words, cells)) > MOST_CHARACTERS else ""
    return f'<div{wide}>{caption}<div class="scroll" tabindex="0">{body}</div></div>'


def _row(cells: Sequence[str], marked: bool) -> str:
    first, *rest = cells
    short = ' class="short"' if len(first) <= SHORT else ""
    inside = f'<th scope="row"{short}>{_text(first)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in rest)
    return f'<tr class="marked">{inside}</tr>' if marked else f"<tr>{inside}</tr>"


def _html_profile(profile: Profile) -> str:
    lists = "".join(f'<p class="lead">{html.escape(name)}</p>{_cards(cards)}' for name, cards in profile.lists)
    notes = "".join(f'<p class="small">{html.escape(_labelled(*note))}</p>' for note in profile.notes)
    return f"<article><h3>{html.escape(profile.title)}</h3>{lists}{notes}</article>"


def _cards(cards: Sequence[Card]) -> str:
    if not cards:
        return '<p class="small">none</p>'
    return f'<ol class="cards">{"".join(map(_card, cards))}</ol>'


def _card(card: Card) -> str:
    picture = f'<img alt="" src="{card.picture}">' if card.picture else ""
    badges = "".join(f'<b class="badge">{html.escape(badge)}</b>' for badge in card.badges)
    about = f"<small>{html.escape(card.about)}</small>" if card.about else ""
    style = ' class="marked"' if card.marked else ""
    return f"<li{style}>{picture}<span>{html.escape(card.title)}</span>{badges}{about}</li>"


def _text(text: str) -> str:
    """Escape text, with `code` and **bold** as HTML."""
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escaped)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{title}</title>
<style>
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --mark: #2f7d5b; --quiet: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --mark: #57b28a; --quiet: #a0a7b4; } }
* { box-sizing: border-box; }
body {
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; max-width: 72rem; margin: 0 auto;
  padding: 1.5rem 1rem 4rem;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); padding: 1.1rem 0 .3rem; }
section:first-of-type { border-top: 0; padding-top: 0; }
p { margin: .4rem 0 .7rem; max-width: 48rem; overflow-wrap: anywhere; }
.strong { font-size: 1.08rem; border-left: 4px solid var(--mark); padding-left: .8rem; }
ul { padding-left: 1.2rem; max-width: 48rem; overflow-wrap: anywhere; }
.scroll {
  overflow-x: auto; margin: .3rem 0 1rem;
  /* A shadow if more columns are behind the edge; the page's colour hides it at the end of the table. */
  background: linear-gradient(to left, Canvas 2rem, transparent 3.5rem) right / 3.5rem 100% no-repeat local,
    linear-gradient(to left, #8887, transparent 1rem) right / 1rem 100% no-repeat scroll;
}
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.caption { margin: .8rem 0 0; color: var(--quiet); font-size: .9rem; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child {
  text-align: left; font-weight: normal; padding-left: 0; position: sticky; left: 0; background: Canvas; z-index: 1;
  max-width: min(20rem, 42vw); white-space: normal; overflow-wrap: break-word; word-break: keep-all;
}
thead th { font-weight: 600 !important; vertical-align: bottom; white-space: normal; }
th.short { white-space: nowrap !important; }
tbody th:not(.short) { min-width: 9rem; }
.marked th, .marked td { font-weight: 600; background: var(--soft); }
.marked th:first-child { background: linear-gradient(var(--soft), var(--soft)), Canvas; }
.prose td:last-child, .prose thead th:last-child { text-align: left; white-space: normal; min-width: 14rem; }
.tables {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 31rem), 1fr)); gap: 0 2rem;
  align-items: start;
}
.tables > div { min-width: 0; }
.tables > .wide { grid-column: 1 / -1; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: .5rem 2rem;
  align-items: start;
}
figure { margin: .5rem 0 1rem; min-width: 0; }
figure > svg { width: 100%; max-width: 34rem; height: auto; display: block; }
figcaption { font-size: .88rem; color: var(--quiet); max-width: 34rem; }
code {
  background: var(--soft); padding: .05rem .3rem; border-radius: .25rem; font-size: .9em; overflow-wrap: anywhere;
}
article { border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; margin: 0 0 1rem; }
.lead { margin: .5rem 0 .2rem; color: var(--quiet); font-size: .88rem; }
.small { font-size: .88rem; }
.cards { list-style: none; display: flex; flex-wrap: wrap; gap: .6rem; margin: 0; padding: 0; }
.cards li {
  width: 8.2rem; font-size: .85rem; line-height: 1.3; border: 1px solid var(--line); border-radius: .4rem;
  padding: .4rem; overflow-wrap: anywhere;
}
.cards .marked { border: 2px solid var(--mark); }
.cards img {
  width: 100%; height: 7rem; object-fit: contain; display: block; margin-bottom: .3rem; border-radius: .25rem;
  background: var(--soft);
}
.cards span, .cards small { display: block; }
.cards small { color: var(--quiet); }
.badge {
  display: inline-block; background: var(--mark); color: Canvas; border-radius: .5rem; padding: 0 .4rem;
  margin: .1rem .2rem 0 0; font-size: .72rem; white-space: nowrap;
}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
