"""The four renderings of a plan, on plans made by hand, with the titles of strangers in them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path

import pytest

from headless.packs import Pack
from headless.plan_mermaid import mermaid
from headless.plan_models import ModelPlan
from headless.plan_report import DRAWN_STAGES, PlanReport, RunPlan, StagePlan, UnusedNode
from headless.plan_svg import svg
from headless.plan_text import print_plan, summary
from headless.terminal import open_console
from photokeep_nodes.errors import PhotoReadError, UsageError, WeightsMissingError

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "</text><script>alert(1)</script>",
    '"]; click s0 "javascript:alert(1)"',
    "]]> <!-- --> &amp; <![CDATA[",
    "line\nbreak\r\n%% {init: {}}",
    "bidi \u202e override \x1b[31m \x00 \ud800",
    "end subgraph `x` #quot; #35;",
    "[bold red]markup[/] \\[x]",
    "漢字 " * 40,
    "",
]

MODELS = (
    ModelPlan(
        "here", "Here x4", "upscale", "here.pth", 67_000_000, "MIT", True, "installed", weight_bytes=67_000_000,
        working_bytes=1_900_000_000, working_is="at least",
    ),
    ModelPlan(
        "gone", "Gone", "denoise", "gone.pth", 348_000_000, "CC BY-NC 4.0", False, "missing",
        install="photokeep models get gone", weight_bytes=400_000_000,
    ),
)  # fmt: skip

STAGES = (
    StagePlan("1", "Load", "PhotokeepLoadPhoto", "cached", "unchanged", last_seconds=0.1),
    StagePlan(
        "2", "Denoise", "PhotokeepDenoise", "blocked", "Gone is not installed", ("1",), ("gone",), 400_000_000, True
    ),
    StagePlan("3", "Theirs", "TestNode", "depends", "after Denoise", ("2", "1"), pack="some-pack"),
    StagePlan(
        "4", "Upscale", "PhotokeepUpscale", "run", "not run before", ("3",), ("here",), 1_967_000_000, True, 7.25
    ),
)


def plan(stages=STAGES, **others) -> PlanReport:
    facts = {"workflow": "flows/w.json", "models": MODELS} | others
    return PlanReport(runs=(RunPlan(Path("scans/aunt may.png"), tuple(stages)),), **facts)


def titled(title: str, stages=STAGES) -> PlanReport:
    return plan(
        [
            StagePlan(each.id, title, title, each.outcome, title, each.after, each.models, pack=title or "pack")
            for each in stages
        ],
        workflow=f"flows/{title}",
        unused=(UnusedNode("9", title, title),),
    )


def chain(count: int) -> PlanReport:
    return plan(StagePlan(str(i), f"Stage {i}", "Node", "run", "why", (str(i - 1),) if i else ()) for i in range(count))


def text_of(report: PlanReport) -> str:
    out = StringIO()
    print_plan(open_console(file=out), report)
    return out.getvalue()


# -- a picture


def drawn(report: PlanReport) -> ET.Element:
    root = ET.fromstring(svg(report))
    assert root.tag == f"{SVG}svg"
    return root


def words(root: ET.Element) -> str:
    return "\n".join("".join(each.itertext()) for each in root.iter(f"{SVG}text"))


def test_a_picture_says_what_there_is_to_say():
    text = words(
        drawn(plan(problem=WeightsMissingError("1 weight file is not installed:\n  x", hint="photokeep models get")))
    )
    for part in (
        "w.json, over aunt may.png", "4 stages", "Load", "cached: unchanged", "stopped: Gone is not installed",
        "depends: after Denoise", "will run: not run before", "Here x4", "67 MB", "missing", "untrusted: some-pack",
        "memory \u2265 2.0 GB", "last time 7.2 s", "A run would stop: 1 weight file is not installed",
        "photokeep models get", "stopped: something is not there", "code of another node pack",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("title", HOSTILE)
def test_strangers_titles_stay_text(title):
    root = drawn(titled(title))
    allowed = {"svg", "title", "desc", "style", "rect", "path", "g", "text", "tspan"}
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= allowed
    assert not any(name.startswith("on") or "href" in name for each in root.iter() for name in each.attrib)


def test_a_picture_asks_for_nothing_else():
    text = svg(plan())
    assert not re.search(r"url\(|@import|<image|<use|href|<!DOCTYPE|<\?xml-stylesheet", text)
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("count", [1, 2, 6, 7, 23, DRAWN_STAGES])
def test_cards_stay_inside_and_apart(count):
    root = drawn(chain(count))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert width < 1800
    cards = [
        tuple(float(each.attrib[name]) for name in ("x", "y", "width", "height"))
        for each in root.iter(f"{SVG}rect")
        if each.attrib.get("class") == "card"
    ]
    assert len(cards) == count
    for index, (x, y, w, h) in enumerate(cards):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for x2, y2, w2, h2 in cards[:index]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    paths = [each.attrib["d"] for each in root.iter(f"{SVG}path")]
    assert all(re.fullmatch(r"[MLCQhlvz0-9 .-]+", path) for path in paths)


def test_the_same_plan_makes_the_same_picture():
    assert svg(plan()) == svg(plan())


# -- a diagram


def test_a_diagram_has_the_stages_their_links_and_their_colours():
    text = mermaid(plan())
    assert text.startswith("flowchart LR\n")
    assert re.search(r'^    s0\["<b>Load</b><br/>cached#58; unchanged.*"\]:::cached$', text, re.MULTILINE)
    for line in ("s0 --> s1", "s1 --> s2", "s0 --> s2", "s2 --> s3", "class s2 untrusted", "classDef blocked"):
        assert f"    {line}" in text
    assert "Gone #40;missing#41;" in text


@pytest.mark.parametrize("title", HOSTILE)
def test_strangers_titles_end_no_label(title):
    lines = mermaid(titled(title)).splitlines()
    boxes = [line for line in lines if ":::" in line]
    assert len(boxes) == len(STAGES)
    for line in boxes:
        label = re.fullmatch(r'    s\d\["(.*)"\]:::\w+', line)
        assert label
        assert re.fullmatch(r"(?:[^\W]| |#\d+;|<b>|</b>|<br/>)*", label[1]), label[1]
    assert len(lines) == 1 + len(STAGES) + 4 + 5 + 1


# -- tables


def test_tables_say_what_there_is_to_say():
    text = text_of(
        plan(
            problem=WeightsMissingError(
                "1 weight file is not installed:\n  details", hint="Get it: photokeep models get"
            ),
            unused=(UnusedNode("9", "Odd", "Node"),),
            warnings=("value_converted: 2.5 is cut to 2",),
            packs=(Pack("some-pack", Path("/packs/some-pack"), "", {}),),
        )
    )
    for part in (
        "scans/aunt may.png", "be cached", "be stopped", "depend", "some-pack (untrusted)", ">= 2.0 GB", "7.2 s",
        "here.pth", "CC BY-NC 4.0 non-commercial", "missing: photokeep models get gone", ">= 1.9 GB",
        "Not used by any output: 9 Odd", "value_converted", "A run would stop: 1 weight file is not installed",
        "Get it: photokeep models get", "untrusted node pack some-pack (/packs/some-pack)",
    ):  # fmt: skip
        assert part in text, part
    assert "details" not in text


@pytest.mark.parametrize("title", HOSTILE)
def test_strangers_titles_steer_no_terminal(title):
    text = text_of(titled(title))
    assert "\x1b" not in text
    assert "\x00" not in text
    if title.startswith("[bold"):
        assert "[bold red]markup[/]" in text


def test_the_summary_adds_up_what_is_left_to_do():
    assert summary(plan().runs[0]) == (
        "4 stages: 1 to run, 1 cached, 1 depending, 1 stopped; models take up to 2.0 GB as far as is known;"
        " 7.2 s last time"
    )
    assert summary(chain(1).runs[0]) == "1 stage: 1 to run"


# -- data


def test_the_data_has_the_keys_that_stay():
    found = plan(problem=WeightsMissingError("gone")).as_json()
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["version", "workflow", "runs", "models", "unused", "warnings", "packs", "problem"]
    (run,) = found["runs"]
    assert [stage["will_run"] for stage in run["stages"]] == [False, None, None, True]
    assert {"id", "title", "class_type", "will_run", "why"} <= run["stages"][0].keys()  # since the first version
    assert [(stage["pack"], stage["trusted"]) for stage in run["stages"][1:3]] == [(None, True), ("some-pack", False)]
    assert run["stages"][2]["after"] == ["2", "1"]
    assert found["models"][1]["state"] == "missing"
    assert found["problem"] == {"type": "WeightsMissingError", "message": "gone"}


# -- limits


@pytest.mark.parametrize("render", [svg, mermaid])
def test_what_is_too_large_to_draw_is_refused_with_a_way_out(render):
    with pytest.raises(UsageError, match=f"{DRAWN_STAGES} at most") as caught:
        render(chain(DRAWN_STAGES + 1))
    assert "--format json" in caught.value.hint


def test_mermaid_draws_nothing_that_mermaid_would_not():
    ids = [str(index) for index in range(40)]
    crowd = [StagePlan(each, each, "Node", "run", "", tuple(ids[:index])) for index, each in enumerate(ids)]
    with pytest.raises(UsageError, match="500 links"):
        mermaid(plan(crowd))
    svg(plan(crowd))
    with pytest.raises(UsageError, match="50000 characters"):
        mermaid(titled("<" * 80, chain(DRAWN_STAGES).runs[0].stages))


@pytest.mark.parametrize("render", [svg, mermaid])
def test_several_photos_are_not_one_picture(render):
    run = plan().runs[0]
    with pytest.raises(UsageError, match="one photo, and there are 2"):
        render(PlanReport("w.json", (run, run)))
    with pytest.raises(PhotoReadError):
        render(PlanReport("w.json", (RunPlan(Path("a.png"), error=PhotoReadError("torn")),)))
