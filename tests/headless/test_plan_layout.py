"""Where stages are put: every link goes to the right, nothing overlaps, whatever the graph."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from headless.plan_layout import Lane, lay_out


@st.composite
def graphs(draw):
    count = draw(st.integers(0, 14))
    return {
        str(index): tuple(
            sorted({str(each) for each in draw(st.lists(st.integers(0, index - 1), max_size=4))}) if index else ()
        )
        for index in range(count)
    }


@given(graphs(), st.data())
@settings(max_examples=150, deadline=None)
def test_links_lead_from_column_to_column_and_nothing_overlaps(after, data):
    heights = {stage: float(data.draw(st.integers(20, 200))) for stage in after}
    layout = lay_out(after, heights.__getitem__, gap=10.0)
    column_of = {spot: index for index, column in enumerate(layout.columns) for spot in column}
    assert {spot for spot in column_of if isinstance(spot, str)} == set(after)
    for source, target in layout.steps:
        assert column_of[target] == column_of[source] + 1
    for column in layout.columns:
        assert column
        for upper, lower in pairwise(column):
            room = layout.middles[lower] - layout.middles[upper]
            assert room >= (heights.get(upper, 0.0) + heights.get(lower, 0.0)) / 2
    # Following the lanes leads from each stage to those that take from it, and to no others.
    behind = {}
    for source, target in layout.steps:
        behind.setdefault(source, []).append(target)

    def reached(spot):
        for each in behind.get(spot, ()):
            if isinstance(each, Lane):
                yield from reached(each)
            else:
                yield each

    takers = {stage: sorted(other for other, sources in after.items() if stage in sources) for stage in after}
    assert {stage: sorted(reached(stage)) for stage in after} == takers


def test_a_chain_is_one_straight_line():
    layout = lay_out({"a": (), "b": ("a",), "c": ("b",)}, lambda _stage: 50.0, gap=10.0)
    assert layout.columns == (("a",), ("b",), ("c",))
    assert len(set(layout.middles.values())) == 1


def test_what_takes_nothing_stands_right_before_what_takes_from_it():
    layout = lay_out({"a": (), "b": ("a",), "late": (), "c": ("b", "late")}, lambda _stage: 50.0, gap=10.0)
    assert [set(column) for column in layout.columns] == [{"a"}, {"b", "late"}, {"c"}]


def test_a_long_link_passes_the_columns_between_in_lanes():
    layout = lay_out({"a": (), "b": ("a",), "c": ("b",), "d": ("c", "a")}, lambda _stage: 50.0, gap=10.0)
    assert [Lane("a", 1) in layout.columns[1], Lane("a", 2) in layout.columns[2]] == [True, True]
    assert (Lane("a", 2), "d") in layout.steps
