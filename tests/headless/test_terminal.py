"""Where reports go: whole, as they are, and to standard output alone where a program reads it."""

from __future__ import annotations

import json
import os

import pytest

from headless.terminal import as_json_text, only_reports_on_stdout, write_text
from photokeep_nodes.errors import PhotokeepError


@pytest.mark.parametrize(
    "text", ["", "plain", "\u00e9\u6f22", "\ud800 half", "\udfff", "\U0001f600", "a\u0000b", '"\\']
)
def test_any_text_is_written_and_read_back(tmp_path, text):
    write_text(str(tmp_path / "r.json"), as_json_text({"said": text}))
    assert json.loads((tmp_path / "r.json").read_bytes()) == {"said": text}


def test_the_name_of_a_file_comes_out_as_the_bytes_it_went_in_as(tmp_path):
    write_text(str(tmp_path / "r.json"), as_json_text([os.fsdecode(b"caf\xe9.png")]))
    assert b"caf\xe9.png" in (tmp_path / "r.json").read_bytes()


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
