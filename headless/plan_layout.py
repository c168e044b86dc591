"""Where the stages of a plan stand in a picture: columns from left to right, wrapped into rows as text is.

Columns are the plan's topological generations. A link that passes columns gets a lane through each of them, shared with
the other links from the same stage. Within a column the order is by barycentres, and the heights are those closest to
the neighbours' that leave the gaps (pool adjacent violators).
Source: Sugiyama, Tagawa and Toda 1981, IEEE Transactions on Systems, Man, and Cybernetics 11(2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import networkx as nx

_SWEEPS = 9  # odd: the last goes along the links
_LANE_HEIGHT = 18.0
_LANE_WEIGHT = 0.2  # a lane gives way to a card

Spot = Union[str, "Lane"]
"""What has a place in a column: a stage, by its id, or a lane."""


@dataclass(frozen=True)
class Lane:
    """Where the links from a stage pass a column."""

    source: str
    column: int


@dataclass(frozen=True)
class Layout:
    """Where everything is, in units of height; columns are numbered.

    Attributes:
        columns: what stands in each, top down.
        middles: height of each spot's middle; of a column's neighbours, not of the picture.
        steps: the links as (from, to), each from one column to the next; a lane may lead to several.
    """

    columns: tuple[tuple[Spot, ...], ...]
    middles: Mapping[Spot, float]
    steps: tuple[tuple[Spot, Spot], ...]


def lay_out(after: Mapping[str, Sequence[str]], height_of: Callable[[str], float], *, gap: float) -> Layout:
    """Find a place for every stage.

    Args:
        after: the stages that each follows, by id, in an order in which each comes after those.
        height_of: height of a stage's card.
        gap: between two cards in a column.
    """
    column_of = _columns(after)
    steps: list[tuple[Spot, Spot]] = []
    columns: list[list[Spot]] = [[] for _ in range(max(column_of.values(), default=-1) + 1)]
    for stage, column in column_of.items():
        columns[column].append(stage)
    lanes: set[Lane] = set()
    for stage, sources in after.items():
        for source in sources:
            spot: Spot = source
            for column in range(column_of[source] + 1, column_of[stage]):
                lane = Lane(source, column)
                if lane not in lanes:
                    lanes.add(lane)
                    columns[column].append(lane)
                    steps.append((spot, lane))
                spot = lane
            steps.append((spot, stage))
    before, behind = _neighbours(steps)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        _order(columns if down else columns[::-1], before if down else behind)
    return Layout(
        columns=tuple(map(tuple, columns)),
        middles=_middles(columns, before, behind, height_of, gap),
        steps=tuple(steps),
    )


def _columns(after: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Column of each stage; one that takes nothing stands right before the first that takes from it."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(after)
    graph.add_edges_from((source, stage) for stage, sources in after.items() for source in sources)
    found = {stage: column for column, stages in enumerate(nx.topological_generations(graph)) for stage in stages}
    return {
        stage: min((found[each] for each in graph.successors(stage)), default=1) - 1
        if not after[stage] and graph.out_degree(stage)
        else found[stage]
        for stage in after
    }


def _neighbours(steps: Sequence[tuple[Spot, Spot]]) -> tuple[dict[Spot, list[Spot]], dict[Spot, list[Spot]]]:
    before: dict[Spot, list[Spot]] = {}
    behind: dict[Spot, list[Spot]] = {}
    for source, target in steps:
        before.setdefault(target, []).append(source)
        behind.setdefault(source, []).append(target)
    return before, behind


def _order(columns: list[list[Spot]], neighbours: Mapping[Spot, list[Spot]]) -> None:
    """Order each column by where its neighbours stand in the one before it."""
    rank: dict[Spot, float] = {}
    for column in columns:
        wanted: dict[Spot, float] = {}
        for index, spot in enumerate(column):
            near = [rank[each] for each in neighbours.get(spot, ()) if each in rank]
            wanted[spot] = sum(near) / len(near) if near else float(index)
        column.sort(key=wanted.__getitem__)
        rank = {spot: float(index) for index, spot in enumerate(column)}


def _middles(
    columns: Sequence[Sequence[Spot]],
    before: Mapping[Spot, list[Spot]],
    behind: Mapping[Spot, list[Spot]],
    height_of: Callable[[str], float],
    gap: float,
) -> dict[Spot, float]:
    heights = {spot: height_of(spot) if isinstance(spot, str) else _LANE_HEIGHT for each in columns for spot in each}
    middles: dict[Spot, float] = {}
    for column in columns:
        _place(column, heights, gap, dict.fromkeys(column, 0.0), middles)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for column in columns if down else columns[::-1]:
            wanted = {}
            for spot in column:
                near = (before if down else behind).get(spot) or (behind if down else before).get(spot) or [spot]
                # A stage lies behind the cards it follows rather than behind lanes.
                cards = [each for each in near if isinstance(each, str)]
                heights_near = [middles[each] for each in (cards if cards and isinstance(spot, str) else near)]
                wanted[spot] = sum(heights_near) / len(heights_near)
            _place(column, heights, gap, wanted, middles)
    return middles


def _place(
    column: Sequence[Spot],
    heights: Mapping[Spot, float],
    gap: float,
    wanted: Mapping[Spot, float],
    middles: dict[Spot, float],
) -> None:
    """Put each spot as close to where it is wanted as the order and the gaps allow: least squares."""
    offsets: dict[Spot, float] = {}
    at = 0.0
    for index, spot in enumerate(column):
        if index:
            last = column[index - 1]
            room = gap if isinstance(spot, str) and isinstance(last, str) else gap / 2
            at += heights[last] / 2 + room + heights[spot] / 2
        offsets[spot] = at
    blocks: list[tuple[float, float, list[Spot]]] = []  # mean, weight, members
    for spot in column:
        mean, weight, members = wanted[spot] - offsets[spot], 1.0 if isinstance(spot, str) else _LANE_WEIGHT, [spot]
        while blocks and blocks[-1][0] >= mean:
            other, others, before = blocks.pop()
            mean = (mean * weight + other * others) / (weight + others)
            weight, members = weight + others, before + members
        blocks.append((mean, weight, members))
    for mean, _, members in blocks:
        for spot in members:
            middles[spot] = mean + offsets[spot]
