"""What policies choose, on cases made by hand and on random ones against brute force."""

from __future__ import annotations

import math
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photokeep_nodes._vram.policy import (
    EXACT_LIMIT,
    Arrival,
    Candidate,
    LruPolicy,
    Outlook,
    PlanAwarePolicy,
    cheapest_cover,
    subset_sums,
)


def idle(key: str, n_bytes: int, last_used: int = 0, next_use: float | None = None, restore_s: float | None = None):
    return Candidate(key, n_bytes, last_used, True, 0.0, next_use, float(n_bytes) if restore_s is None else restore_s)


def keys(chosen) -> str:
    return "".join(sorted(each.key for each in chosen))


def arrivals(text: str, sizes: dict[str, int], working: int = 0) -> list[Arrival]:
    return [Arrival(key, sizes[key], float(sizes[key]), working) for key in text]


def subsets(candidates):
    return chain.from_iterable(combinations(candidates, count) for count in range(len(candidates) + 1))


candidate_lists = st.lists(
    st.tuples(
        st.integers(1, 20),
        st.integers(0, 50),
        st.one_of(st.none(), st.just(math.inf), st.integers(1, 30)),
        st.floats(0, 10),
    ),
    max_size=9,
).map(lambda rows: [idle(f"m{index}", *row) for index, row in enumerate(rows)])

outlooks = st.builds(
    Outlook,
    st.lists(
        st.tuples(
            st.floats(0.1, 1),
            st.lists(
                st.builds(Arrival, st.sampled_from([f"m{index}" for index in range(12)]), st.just(5), st.just(1.0)),
                max_size=12,
            ),
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["m10", "m11"]), st.just(5)),
    st.integers(0, 5),
)


# -- every policy -----------------------------------------------------------------------------------------------------


@given(candidate_lists, st.integers(1, 100), outlooks, st.randoms(use_true_random=False))
def test_the_need_is_covered_where_it_can_be_and_nothing_leaves_needlessly(candidates, need, outlook, rng):
    shuffled = candidates.copy()
    rng.shuffle(shuffled)
    for choose in (
        LruPolicy().choose,
        PlanAwarePolicy().choose,
        lambda these, bytes_: PlanAwarePolicy().choose(these, bytes_, outlook),
    ):
        chosen = choose(candidates, need)
        freed = sum(each.n_bytes for each in chosen)
        if sum(each.n_bytes for each in candidates) < need:
            assert not chosen
            continue
        assert freed >= need
        assert all(freed - each.n_bytes < need for each in chosen)
        assert keys(choose(shuffled, need)) == keys(chosen), "the order of the candidates does not matter"


@given(candidate_lists, st.integers(1, 100))
def test_where_nothing_is_known_the_least_recently_used_leaves(candidates, need):
    unknown = [idle(each.key, each.n_bytes, each.last_used) for each in candidates]
    assert PlanAwarePolicy().choose(unknown, need) == LruPolicy().choose(unknown, need)
    assert PlanAwarePolicy().choose(unknown, need, Outlook()) == LruPolicy().choose(unknown, need)


def test_lru_takes_the_oldest_and_spares_what_a_later_victim_makes_needless():
    candidates = [idle("a", 1, 1), idle("b", 2, 2), idle("c", 5, 3), idle("d", 5, 4)]
    assert keys(LruPolicy().choose(candidates, 1)) == "a"
    assert keys(LruPolicy().choose(candidates, 3)) == "ab"
    assert keys(LruPolicy().choose(candidates, 5)) == "c"
    assert keys(LruPolicy().choose(candidates, 14)) == ""


# -- the cheapest subset ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=8),
    st.integers(1, 80),
)
def test_the_subset_is_as_cheap_as_the_cheapest_of_all(rows, need):
    candidates = [idle(f"m{index}", n_bytes) for index, (n_bytes, _) in enumerate(rows)]
    price = {each: float(row[1]) for each, row in zip(candidates, rows, strict=True)}
    covers = [each for each in subsets(candidates) if sum(one.n_bytes for one in each) >= need]
    chosen = cheapest_cover(candidates, list(price.values()), need)
    if not covers:
        assert not chosen
    else:
        assert sum(map(price.get, chosen)) == min(sum(map(price.get, each)) for each in covers)


def test_of_many_candidates_the_cheap_ones_are_considered_and_a_large_need_is_still_covered():
    many = [idle(f"m{index:02}", 1 + index % 3, index) for index in range(EXACT_LIMIT + 10)]
    prices = [float(index) for index in range(len(many))]
    assert [each.key for each in cheapest_cover(many, prices, 1)] == ["m00"]
    everything = sum(each.n_bytes for each in many)
    assert len(cheapest_cover(many, prices, everything)) == len(many)
    assert sum(each.n_bytes for each in cheapest_cover(many, prices, everything - 3)) >= everything - 3


def test_sums_are_those_of_the_masks():
    assert subset_sums([1, 2, 4]).tolist() == list(range(8))
    assert subset_sums([]).tolist() == [0]


# -- by plan ----------------------------------------------------------------------------------------------------------


def test_what_is_needed_later_and_comes_back_cheaply_leaves_first():
    choose = PlanAwarePolicy().choose
    assert keys(choose([idle("a", 4, next_use=2), idle("b", 4, next_use=9)], 4)) == "b"
    assert keys(choose([idle("a", 4, next_use=3, restore_s=9), idle("b", 4, next_use=3, restore_s=1)], 4)) == "b"
    assert keys(choose([idle("a", 9, next_use=2), idle("b", 2, next_use=1), idle("c", 2, next_use=1)], 4)) == "bc"


def test_what_no_plan_needs_leaves_before_all_else_the_oldest_first():
    never = math.inf
    candidates = [idle("a", 4, 3, never), idle("b", 4, 2, never), idle("c", 4, 1, 100.0)]
    assert keys(PlanAwarePolicy().choose(candidates, 4)) == "b"
    assert keys(PlanAwarePolicy().choose(candidates, 8)) == "ab"


def test_what_is_not_known_counts_as_far_away_as_its_last_use():
    candidates = [idle("a", 4, 1), idle("b", 4, 9, 5.0), idle("c", 4, 8)]
    assert keys(PlanAwarePolicy().choose(candidates, 4)) == "a"


# -- playing ahead ----------------------------------------------------------------------------------------------------


def test_one_large_model_leaves_where_that_saves_evicting_small_ones_at_the_next_steps():
    sizes = {"a": 11, "b": 1, "c": 1, "d": 1, "x": 1, "y": 4, "z": 4}
    candidates = [
        idle("a", 11, 1, 8.0),
        idle("b", 1, 2, 3.0),
        idle("c", 1, 3, 4.0),
        idle("d", 1, 4, 5.0),
    ]
    policy = PlanAwarePolicy()
    assert keys(policy.choose(candidates, 1)) == "d", "the cheapest by itself"
    outlook = Outlook([(1.0, arrivals("yzbcdyzbcd", sizes))], {"x": 1})
    assert keys(policy.choose(candidates, 1, outlook)) == "a"


def test_working_memory_counts_in_what_is_played_through():
    # Eight bytes of weights fit beside the new model, but not together with what its neighbour needs to compute.
    sizes = {"a": 4, "b": 4, "n": 4}
    candidates = [idle("a", 4, 2, 1.0), idle("b", 4, 1, 2.0)]
    free_anyway = Outlook([(1.0, arrivals("ab", sizes))], {"n": 4}, working_bytes=4)
    assert keys(PlanAwarePolicy().choose(candidates, 4, free_anyway)) == "b"
    wide = Outlook([(1.0, [*arrivals("a", sizes, 8), *arrivals("b", sizes)])], {"n": 4}, working_bytes=4)
    assert keys(PlanAwarePolicy().choose(candidates, 4, wide)) == "b"


@pytest.mark.parametrize("need", [0, 4, 8])
def test_there_may_be_nothing_to_play_through(need):
    candidates = [idle("a", 4, 1, 3.0), idle("b", 4, 2, 6.0)]
    outlook = Outlook([(1.0, arrivals("ab", {"a": 4, "b": 4}))])
    policy = PlanAwarePolicy()
    assert keys(policy.choose(candidates, need, outlook)) == {0: "", 4: "b", 8: "ab"}[need]
    assert keys(policy.choose(candidates[:1], 4, outlook)) == "a"


def test_a_guess_is_followed_only_where_most_futures_agree():
    sizes = {"a": 4, "b": 4}
    candidates = [idle("a", 4, 1, 4.0), idle("b", 4, 2, 4.5)]
    a_first = arrivals("a", sizes)
    nothing: list[Arrival] = []
    policy = PlanAwarePolicy()
    assert keys(policy.choose(candidates, 4, Outlook([(1.0, a_first)]))) == "b"
    doubtful = Outlook([(0.1, a_first), (0.9, nothing)])
    assert keys(policy.choose(candidates, 4, doubtful)) == "a"
