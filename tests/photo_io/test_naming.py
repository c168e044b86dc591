from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photokeep_nodes.errors import PhotoWriteError
from photokeep_nodes.photo_io import expand_name
from photokeep_nodes.photo_io.naming import safe_component

NOW = datetime(2031, 2, 3, 4, 5, 6)  # noqa: DTZ001 - local time is what file names carry


def expand(template: str, **options: object) -> tuple[str, str]:
    options.setdefault("info", {"name": "olga"})
    return expand_name(template, now=NOW, **options)


@pytest.mark.parametrize(
    ("template", "want"),
    [
        ("%photo%_restored", ("", "olga_restored")),
        ("album/%photo%", ("album", "olga")),
        ("a//./b/%photo%", ("a/b", "olga")),
        ("a\\%photo%", ("a", "olga")),
        ("%date%", ("", "2031-02-03")),
        ("%date%_%time%", ("", "2031-02-03_04-05-06")),
        ("%year%%month%%day%-%hour%%minute%%second%", ("", "20310203-040506")),
        ("%date:yyyy-MM-dd hh.mm.ss%", ("", "2031-02-03 04.05.06")),
        ("%date:yy-M-d h m s%", ("", "31-2-3 4 5 6")),
        ("%date:yyyy/MM%", ("", "2031_02")),
        ("%width%x%height%", ("", "640x480")),
        ("p%batch_num%", ("", "p2")),
        ("100%", ("", "100%")),
        ("%KSampler.seed%", ("", "%KSampler.seed%")),
        ('a<b>:"c|?*', ("", "a_b___c___")),
        ("line\nbreak\x00", ("", "line_break_")),
        ("CON", ("", "_CON")),
        ("aux.album/lpt1", ("_aux.album", "_lpt1")),
        ("trailing. . ", ("", "trailing")),
        (".hidden", ("", "_hidden")),
        ("été", ("", "été")),
        (" ", ("", "photo")),
    ],
)
def test_templates(template, want):
    assert expand(template, width=640, height=480, index=2) == want


@pytest.mark.parametrize(
    "template", ["", "/", "a/", "/etc/x", "\\\\server\\share\\x", "C:\\x", "c:/x", "../x", "a/../x", "a/.. /x", ".."]
)
def test_refused(template):
    with pytest.raises(PhotoWriteError) as caught:
        expand(template)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a/b", "..\\..\\x", "../../etc/passwd", "a\0b", "C:\\x"])
def test_a_photos_name_makes_no_folders(name):
    folder, stem = expand("out/%photo%_r", info={"name": name})
    assert folder == "out"
    assert "/" not in stem
    assert "\\" not in stem


def test_without_info():
    assert expand("%photo%", info=None) == ("", "photo")
    assert expand("%photo%", info={"name": ""}) == ("", "photo")


def test_long_names_are_cut_between_characters():
    _, stem = expand("é" * 300)
    assert stem == "é" * 90
    assert len(expand("x" * 5000)[1]) == 180


def test_the_present_by_default():
    assert expand_name("%year%")[1] == str(datetime.now().astimezone().year)


@given(st.text(max_size=300))
def test_every_component_is_safe(text):
    safe = safe_component(text)
    assert safe
    assert safe == safe_component(safe)
    assert not set(safe) & set('<>:"|?*\\/\0\n\r')
    assert not safe.startswith(".")
    assert not safe.endswith((" ", "."))
    assert len(safe.encode("utf-8")) <= 181
