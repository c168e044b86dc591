"""What is guessed from the order in which models were used."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from photokeep_nodes._vram.forecast import HORIZON, MEMORY, Forecast, new_log


def log_of(text: str):
    log = new_log()
    for key in text:
        if log[-1] != key:
            log.append(key)
    return log


def followed(forecast: Forecast) -> list[str]:
    return ["".join(keys) for _, keys in forecast.futures]


def test_nothing_is_known_of_what_never_happened():
    assert Forecast(new_log(), ["a"]).futures == []
    assert Forecast(log_of("abc"), ["d"]).futures == []
    assert Forecast(log_of("abc"), ["d"]).next_use("a") is None, "no moment was like this one"
    assert Forecast(log_of("abab"), ["a"]).next_use("z") is None
    assert Forecast(new_log(), []).futures == []


def test_a_cycle_goes_on():
    forecast = Forecast(log_of("abcd" * 6), ["a"])
    weight, future = max(forecast.futures, key=lambda each: len(each[1]))
    assert "".join(future) == ("bcda" * 9)[:HORIZON]
    assert 0 < weight <= 1
    distance = {key: forecast.next_use(key) for key in "bcd"}
    for expected, key in enumerate("bcd", start=1):
        assert abs(distance[key] - expected) < 0.3


def test_a_model_used_twice_in_a_cycle_is_told_by_what_led_up_to_it():
    # After a, either b or c: what came before tells which, and no average of gaps could.
    soon = Forecast(log_of("abac" * 6), ["a"])
    assert followed(soon)[0].startswith("bac")
    late = Forecast(log_of("abac" * 6 + "ab"), ["a"])
    assert followed(late)[0].startswith("cab")
    assert soon.next_use("b") < soon.next_use("c")
    assert late.next_use("c") < late.next_use("b")


def test_a_model_used_many_times_in_a_row_is_one_use():
    assert list(log_of("aaabbbbab"))[1:] == list("abab")
    assert Forecast(log_of("abc"), ["c", "c"]).futures == []


def test_what_stopped_being_used_fades():
    log = log_of("xabc" + "abc" * 20)
    forecast = Forecast(log, ["a"])
    assert forecast.next_use("x") > 50 > forecast.next_use("c")


@given(st.text("abcdef", max_size=60), st.lists(st.sampled_from("abcdefg"), max_size=3))
def test_every_history_gives_weights_that_sum_up_and_distances_that_make_sense(text, present):
    forecast = Forecast(log_of(text), present)
    assert not forecast.futures or abs(sum(weight for weight, _ in forecast.futures) - 1) < 1e-9
    for key in "abcdefg":
        distance = forecast.next_use(key)
        assert distance is None or distance >= 1
    assert all(len(future) <= HORIZON for _, future in forecast.futures)


def test_memory_is_bounded_and_noise_does_no_harm():
    rng = random.Random(1)
    log = log_of("".join(rng.choice("abcdefgh") for _ in range(5 * MEMORY)))
    assert len(log) == MEMORY
    forecast = Forecast(log, ["a"])
    guesses = [forecast.next_use(key) for key in "bcdefgh"]
    assert all(1 <= guess < 100 for guess in guesses)
