"""Where reports go: whole, as they are, and to standard output alone where a program reads it."""

from __future__ import annotations

import io
import json
import os

import pytest
from rich.table import Table

from headless.display import LiveDisplay
from headless.events import StageProgressed, StageStarted
from headless.terminal import as_json_text, one_line, only_reports_on_stdout, open_console, plain, write_text
from photokeep_nodes.errors import PhotokeepError


@pytest.mark.parametrize(
    "text", ["", "plain", "\u00e9\u6f22", "\ud800 half", "\udfff", "\U0001f600", "a\u0000b", '"\\']
)
def test_any_text_is_written_and_read_back(tmp_path, text):
    write_text(str(tmp_path / "r.json"), as_json_text({"said": text}))
    assert json.loads((tmp_path / "r.json").read_bytes()) == {"said": text}


def test_the_name_of_a_file_comes_out_as_text_that_names_it(tmp_path):
    write_text(str(tmp_path / "r.json"), as_json_text([os.fsdecode(b"caf\xe9.png")]))
    (name,) = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert os.fsencode(name) == b"caf\xe9.png"


def test_a_file_that_cannot_be_written_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PhotokeepError, match="cannot be written"):
        write_text(str(tmp_path / "file" / "r.json"), "x")


def test_what_is_printed_meanwhile_goes_to_standard_error(capsys):
    with only_reports_on_stdout():
        print("chatter")
    with only_reports_on_stdout(wanted=False):
        print("shown")
    write_text("-", "report")
    out, err = capsys.readouterr()
    assert (out, err) == ("shown\nreport", "chatter\n")


NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r"


@pytest.mark.parametrize("text", ["a\nb\tc", "\u00e9\u6f22\U0001f468\u200d\U0001f469", "10:30\u202fAM", "\udce9"])
def test_what_does_not_steer_a_terminal_is_left_as_it_is(text):
    assert plain(text) == text


def test_nothing_that_is_printed_steers_the_terminal():
    out = io.StringIO()
    console = open_console(file=out)
    console.print(f"[bold]{NASTY}[/]")
    console.print(NASTY, markup=False)
    table = Table(NASTY, title=NASTY)
    table.add_row(NASTY)
    console.print(table)
    text = out.getvalue()
    assert text.count("owned") == 5
    assert plain(text) == text


def test_ids_and_names_are_no_pictures():
    out = io.StringIO()
    open_console(file=out).print("node 2:100:11, a:fire:b.jpg")
    assert out.getvalue() == "node 2:100:11, a:fire:b.jpg\n"


def test_a_title_stays_on_its_line():
    assert one_line("x\nerror: all is lost\t\x1b[2J") == "x error: all is lost ?[2J"
    assert len(one_line("T" * 10_000)) == 200


def test_nor_does_a_progress_bar(monkeypatch):
    out = io.StringIO()
    console = open_console(file=out)
    monkeypatch.setattr(type(console), "is_terminal", property(lambda _self: True))
    with LiveDisplay(console, quiet=False, verbose=True) as display:
        display(StageStarted("1", NASTY, NASTY, 1, 2))
        display(StageProgressed("1", 1, 3, NASTY))
        display._progress.refresh()
    assert "owned" in out.getvalue()
    assert "\x1b]0" not in out.getvalue()
    assert not {"\x07", "\x9b", "\u202e"} & set(out.getvalue())


def test_a_report_is_json_that_can_be_looked_at():
    text = as_json_text({"title": NASTY})
    assert plain(text) == text
    assert json.loads(text) == {"title": NASTY}
