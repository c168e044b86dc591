"""A plan as a picture: one SVG file that needs nothing else, on light and on dark pages.

Every text goes through an XML writer, so that what a stranger's file is called stays text.
"""

from __future__ import annotations

import math
import unicodedata
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from .graph import printable
from .models_display import size
from .plan_layout import Lane, lay_out
from .plan_text import last_text, memory_text, summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .plan_layout import Layout, Spot
    from .plan_models import ModelPlan
    from .plan_report import Outcome, PlanReport, RunPlan, StagePlan

_WORDS: Mapping[Outcome, str] = {
    "run": "will run",
    "cached": "cached",
    "depends": "depends",
    "blocked": "stopped",
}
_LEGEND: Mapping[Outcome, str] = {
    "run": "will run",
    "cached": "cached: will not run",
    "depends": "depends on what comes before",
    "blocked": "stopped: something is not there",
}

_CARD = 244.0
_BETWEEN = 52.0
_GAP = 26.0
_MARGIN = 28.0
_PAD = 14.0
_COLUMNS = 5  # in a row, of more than that
_TRACK = 9.0  # between two links that turn a corner together
_CORNER = 8.0
_LINE = 16.0
_BOLD = 1.1  # how much wider it is

_STYLE = """
.photokeep-plan { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif }
.page { fill: #ffffff } .card { fill: #f7f8fa; stroke: #d3d8df }
.strong { fill: #14191f; font-weight: 600 } .plain { fill: #323b46 } .faint { fill: #667180 }
.link { fill: none; stroke: #98a3b1; stroke-width: 1.8 } .far { stroke: #bcc5cf; stroke-width: 1.3 }
.tip { fill: #98a3b1 }
.run { fill: #1a8a4a } .cached { fill: #1873c9 } .depends { fill: #a86d00 } .blocked { fill: #cf2f3a }
.word { font-weight: 600 }
.untrusted { stroke: #a86d00; stroke-width: 2; stroke-dasharray: 6 4 } .warn { fill: #a86d00; font-weight: 600 }
.bad { fill: #cf2f3a; font-weight: 600 }
@media (prefers-color-scheme: dark) {
.page { fill: #0f1318 } .card { fill: #1a2028; stroke: #343d49 }
.strong { fill: #f0f3f7 } .plain { fill: #c6ced8 } .faint { fill: #929dab }
.link { stroke: #737f8f } .far { stroke: #4c5664 } .tip { fill: #626e7d }
.run { fill: #43c37b } .cached { fill: #5aaaf5 } .depends { fill: #e2a93b } .blocked { fill: #ff6b72 }
.untrusted { stroke: #e2a93b } .warn { fill: #e2a93b } .bad { fill: #ff6b72 }
}
"""


@dataclass(frozen=True)
class _Text:
    """A line of a card: what stands left, with a word before it, what stands right, and how."""

    left: str
    style: str = "plain"
    points: float = 12.0
    right: str = ""
    right_style: str = "faint"
    mark: str = ""
    mark_style: str = ""
    leading: float = _LINE


@dataclass
class _Picture:
    """An SVG being drawn."""

    root: ET.Element = field(
        default_factory=lambda: ET.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "photokeep-plan", "role": "img"}
        )
    )

    def add(self, tag: str, parent: ET.Element | None = None, text: str = "", **attributes: str | float) -> ET.Element:
        """Add an element; ``_`` in a name stands for ``-``, and at its end for nothing."""
        named = {
            name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
            for name, value in attributes.items()
        }
        made = ET.SubElement(self.root if parent is None else parent, tag, named)
        made.text = text
        return made

    def words(
        self, parent: ET.Element | None, x: float, y: float, text: str, style: str, points: float, *, end: bool = False
    ) -> ET.Element:
        """Add one line of text; y is its baseline."""
        more = {"text_anchor": "end"} if end else {}
        return self.add("text", parent, text, x=x, y=y, class_=style, font_size=points, **more)


def svg(report: PlanReport) -> str:
    """Draw a plan.

    Raises:
        UsageError: it is of several photos, or has too many stages.
    """
    run = report.drawn_run("a picture")
    models = {model.id: model for model in report.models}
    lines = {stage.id: _lines(stage, models) for stage in run.stages}
    heights = {stage_id: 2 * _PAD + sum(line.leading for line in each) - 4 for stage_id, each in lines.items()}
    layout = lay_out({stage.id: stage.after for stage in run.stages}, heights.__getitem__, gap=_GAP)
    top = 104.0
    places = _Places(layout, heights, top)

    picture = _Picture()
    head = _headline(report)
    notes = _notes(report, places.width)
    height = places.bottom + _MARGIN + (_LINE + 4) * len(notes)
    picture.root.attrib |= {
        "width": f"{places.width:.0f}",
        "height": f"{height:.0f}",
        "viewBox": f"0 0 {places.width:.0f} {height:.0f}",
    }
    picture.add("title", text=f"Plan of {head}")
    picture.add("desc", text=summary(run))
    picture.add("style", text=_STYLE)
    picture.add("rect", class_="page", width="100%", height="100%")
    _draw_head(picture, head, run, places.width)
    for path, is_far in places.paths():
        picture.add("path", class_="link far" if is_far else "link", d=path)
    for x, y in places.tips():
        picture.add("path", class_="tip", d=f"M{x:.1f} {y:.1f}l-8 -4.5v9z")
    for stage in run.stages:
        _draw_card(picture, stage, lines[stage.id], *places.corner(stage.id), heights[stage.id])
    for index, (style, note) in enumerate(notes):
        picture.words(None, _MARGIN, places.bottom + 20 + (_LINE + 4) * index, note, style, 12.5)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(picture.root, encoding="unicode") + "\n"


# -- what is written ------------------------------------------------------------------------------------------------


def _headline(report: PlanReport) -> str:
    photo = report.runs[0].photo
    return printable(PurePath(report.workflow).name + ("" if photo is None else f", over {photo.name}"), 120)


def _lines(stage: StagePlan, models: Mapping[str, ModelPlan]) -> list[_Text]:
    """What a card says."""
    inner = _CARD - 2 * _PAD
    lines = [
        _Text(_fitted(stage.title, inner, 15 * _BOLD), "strong", 15, leading=20),
        _Text(_fitted(f"{stage.id}  {stage.class_type}", inner, 11), "faint", 11, leading=20),
    ]
    word = f"{_WORDS[stage.outcome]}:"
    first, *more = _wrapped(f"{word} {stage.why}", inner, 12, 2)
    lines.append(_Text(first.removeprefix(word), mark=word, mark_style=f"{stage.outcome} word"))
    lines += [_Text(line) for line in more]
    for model_id in stage.models:
        model = models[model_id]
        there = model.state == "installed"
        right = size(model.size_bytes) if there and model.size_bytes else "" if there else model.state
        room = inner - _width(right, 11) - 10
        lines.append(_Text(_fitted(model.title, room, 12), "plain", 12, right, "faint" if there else "bad"))
    memory, last = memory_text(stage).replace(">=", "\u2265"), last_text(stage)
    facts = [f"memory {memory}" if memory else "", f"last time {last}" if last else ""]
    if any(facts):
        lines.append(_Text("  \u00b7  ".join(filter(None, facts)), "faint", 11))
    if not stage.trusted:
        lines.append(_Text(_fitted(f"untrusted: {stage.pack}", inner, 11.5 * _BOLD), "warn", 11.5))
    return lines


def _notes(report: PlanReport, width: float) -> list[tuple[str, str]]:
    """What stands below the picture, with its style."""
    room = width - 2 * _MARGIN
    notes: list[tuple[str, str]] = []
    if report.problem is not None:
        first = report.problem.message.splitlines()[0].rstrip(":")
        notes.append(("bad", _fitted(f"A run would stop: {first}", room, 13)))
        notes += [("plain", _fitted(line, room, 13)) for line in report.problem.hint.splitlines()[:1]]
    names = ", ".join(pack.name for pack in report.packs)  # no paths: pictures are shown to others
    if names:
        notes.append(
            ("warn", _fitted(f"Code of untrusted node packs, which runs with all your rights: {names}", room, 14))
        )
    if report.unused:
        names = ", ".join(node.title for node in report.unused)
        notes.append(("faint", _fitted(f"Not used by any output: {names}", room, 12.5)))
    return notes


def _draw_head(picture: _Picture, head: str, run: RunPlan, width: float) -> None:
    picture.words(None, _MARGIN, 40, _fitted(head, width - 2 * _MARGIN, 20 * _BOLD), "strong", 20)
    picture.words(None, _MARGIN, 62, _fitted(summary(run), width - 2 * _MARGIN, 13), "faint", 13)
    x = _MARGIN
    for outcome in run.counts:
        picture.add("rect", x=x, y=76, width=11, height=11, rx=3, class_=outcome)
        picture.words(None, x + 17, 86, _LEGEND[outcome], "plain", 12)
        x += 17 + _width(_LEGEND[outcome], 12) + 22
    if not all(stage.trusted for stage in run.stages):
        picture.add("rect", x=x, y=76, width=18, height=11, rx=3, class_="card untrusted")
        picture.words(None, x + 24, 86, "code of another node pack", "plain", 12)


def _draw_card(picture: _Picture, stage: StagePlan, lines: Sequence[_Text], x: float, y: float, height: float) -> None:
    card = picture.add("g")
    facts = [f"{stage.title} ({stage.id}, {stage.class_type})", f"{_WORDS[stage.outcome]}: {stage.why}"]
    picture.add("title", card, printable(". ".join(facts), 400))
    style = "card" if stage.trusted else "card untrusted"
    picture.add("rect", card, x=x, y=y, width=_CARD, height=height, rx=9, class_=style)
    picture.add("rect", card, x=x, y=y + 9, width=4, height=height - 18, rx=2, class_=stage.outcome)
    at = y + _PAD - 4
    for line in lines:
        at += line.leading
        words = picture.words(card, x + _PAD, at, "" if line.mark else line.left, line.style, line.points)
        if line.mark:
            picture.add("tspan", words, line.mark, class_=line.mark_style).tail = line.left
        if line.right:
            picture.words(card, x + _CARD - _PAD, at, line.right, line.right_style, 11, end=True)


def _width(text: str, points: float) -> float:
    """About how wide a line is, of a wide font: none is asked, for each reader has another."""
    return sum(map(_em, text)) * points


def _em(char: str) -> float:
    if char in "iljI .,:;!|'":
        return 0.34
    if char in 'frt()[]{}/\\-"`':
        return 0.42
    if char in "mwMW@%<>=+~&\u2026" or unicodedata.east_asian_width(char) in {"W", "F"}:
        return 1.0
    return 0.72 if char.isupper() else 0.62


def _fitted(text: str, room: float, points: float) -> str:
    """``text`` on one line, cut where it does not fit."""
    text = printable(text, 400)
    if _width(text, points) <= room:
        return text
    while text and _width(f"{text}\u2026", points) > room:
        text = text[:-1]
    return f"{text.rstrip()}\u2026"


def _wrapped(text: str, room: float, points: float, most: int) -> list[str]:
    """``text`` in at most ``most`` lines, the last of them cut."""
    lines = [""]
    words = printable(text, 400).split()
    for index, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _width(longer, points) <= room:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[index:]])
            break
    return [_fitted(line, room, points) for line in lines if line]


# -- where it stands ------------------------------------------------------------------------------------------------


class _Places:
    """A layout in pixels: its columns wrapped into rows.

    Args:
        layout: in columns.
        heights: of the cards.
        top: where the first row begins.
    """

    def __init__(self, layout: Layout, heights: Mapping[str, float], top: float) -> None:
        self._layout = layout
        self._heights = heights
        count = len(layout.columns)
        rows = 1 if count <= _COLUMNS + 1 else math.ceil(count / _COLUMNS)
        self._per_row = math.ceil(count / rows) if count else 1
        self._column = {spot: index for index, column in enumerate(layout.columns) for spot in column}
        # Links that turn to the next row, the topmost first: outermost on the right, innermost on the left.
        self._turning: dict[int, list[Spot]] = {}
        for source, _ in layout.steps:
            column = self._column[source]
            if self._ends_row(column) and source not in (turning := self._turning.setdefault(column, [])):
                turning.append(source)
        for turning in self._turning.values():
            turning.sort(key=layout.middles.__getitem__)
        widest = max(map(len, self._turning.values()), default=0)
        side = 14 + _TRACK * widest if widest else 0.0
        self._left = _MARGIN + side
        self.width = max(self._left + self._per_row * (_CARD + _BETWEEN) - _BETWEEN + side + _MARGIN, 560.0)
        self._shift: list[float] = []  # from a layout's heights to pixels, row by row
        self._row_bottom: list[float] = []
        for first in range(0, count, self._per_row):
            spots = [spot for column in layout.columns[first : first + self._per_row] for spot in column]
            upper = min(layout.middles[spot] - self._half(spot) for spot in spots)
            lower = max(layout.middles[spot] + self._half(spot) for spot in spots)
            self._shift.append(top - upper)
            self._row_bottom.append(top + lower - upper)
            turning = self._turning.get(first + self._per_row - 1, [])
            top += lower - upper + 2 * _GAP + _TRACK * len(turning)
        self.bottom = self._row_bottom[-1] if self._row_bottom else top
        self._ports = self._entries()

    def _ends_row(self, column: int) -> bool:
        return (column + 1) % self._per_row == 0 and column + 1 < len(self._layout.columns)

    def _half(self, spot: Spot) -> float:
        return self._heights[spot] / 2 if isinstance(spot, str) else _TRACK

    def _x(self, spot: Spot) -> float:
        return self._left + (self._column[spot] % self._per_row) * (_CARD + _BETWEEN)

    def _y(self, spot: Spot) -> float:
        return self._layout.middles[spot] + self._shift[self._column[spot] // self._per_row]

    def corner(self, stage_id: str) -> tuple[float, float]:
        """Upper left corner of a card."""
        return self._x(stage_id), self._y(stage_id) - self._heights[stage_id] / 2

    def _entries(self) -> dict[tuple[Spot, Spot], float]:
        """Height at which each link enters: a card that takes several has them beside each other."""
        entering: dict[Spot, list[Spot]] = {}
        for source, target in self._layout.steps:
            entering.setdefault(target, []).append(source)
        ports = {}
        for target, sources in entering.items():
            sources.sort(key=self._layout.middles.__getitem__)
            apart = 0.0 if isinstance(target, Lane) else min(14.0, (self._half(target) * 2 - 24) / len(sources))
            for index, source in enumerate(sources):
                ports[source, target] = self._y(target) + (index - (len(sources) - 1) / 2) * apart
        return ports

    def tips(self) -> list[tuple[float, float]]:
        """Where links end at a card."""
        return [(self._x(target), y) for (_, target), y in self._ports.items() if isinstance(target, str)]

    def paths(self) -> list[tuple[str, bool]]:
        """The links, and the lanes, as SVG paths, and whether each is of a link that passes columns."""
        lanes = [spot for spot in self._column if isinstance(spot, Lane)]
        return [
            *((f"M{self._x(lane):.1f} {self._y(lane):.1f}h{_CARD:.1f}", True) for lane in lanes),
            *(
                (self._path(source, target), isinstance(source, Lane) or isinstance(target, Lane))
                for source, target in self._layout.steps
            ),
        ]

    def _path(self, source: Spot, target: Spot) -> str:
        x1, y1 = self._x(source) + _CARD, self._y(source)
        x2, y2 = self._x(target) - (7 if isinstance(target, str) else 0), self._ports[source, target]
        column = self._column[source]
        if not self._ends_row(column):
            bend = (x2 - x1) / 2
            return f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        turning = self._turning[column]
        index = turning.index(source)
        outside = len(turning) - 1 - index
        right = x1 + 14 + _TRACK * outside
        channel = self._row_bottom[column // self._per_row] + _GAP + _TRACK * outside
        left = self._left - 18 - _TRACK * index
        return _rounded([(x1, y1), (right, y1), (right, channel), (left, channel), (left, y2), (x2, y2)])


def _rounded(points: Sequence[tuple[float, float]]) -> str:
    """A path of straight lines with round corners."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for before, corner, behind in zip(points, points[1:], points[2:], strict=False):
        (x1, y1), (x2, y2) = _towards(corner, before), _towards(corner, behind)
        path += f"L{x1:.1f} {y1:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {x2:.1f} {y2:.1f}"
    return f"{path}L{points[-1][0]:.1f} {points[-1][1]:.1f}"


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The point where a corner's rounding meets the line to ``other``."""
    far = math.dist(corner, other)
    share = min(_CORNER, far / 2) / far if far else 0.0
    return corner[0] + (other[0] - corner[0]) * share, corner[1] + (other[1] - corner[1]) * share
