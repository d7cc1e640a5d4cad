"""What is made of the values: ratios by pairs, windows, averages."""

import io

import pytest

from .figures import Figure, Report, WrongSumError, must, number, show
from .limiter import average_of, between, most_in


def test_a_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    figure = Figure("what", "µs", [10, 40, 30], "floor", [10, 10, 20])

    assert figure.ratio == 1.5
    assert figure.median == 30


def test_a_figure_without_a_baseline_has_no_ratio_and_reaches_nothing_by_it() -> None:
    figure = Figure("what", "µs", [10]).judge(lambda ratio: ratio < 2)

    assert figure.ratio is None
    assert figure.reached is False


@pytest.mark.parametrize(
    ("times", "most"),
    [
        ([5.0], 1),
        ([0.0, 0.5, 1.0], 2),  # what comes a whole second later is in the next window
        ([0.0, 0.5, 0.999, 1.2], 3),
        ([0.0, 10.0, 10.0, 10.0, 20.0], 3),
    ],
)
def test_the_fullest_window_slides(times: list[float], most: int) -> None:
    assert most_in(times, 1.0) == most


def test_an_average_counts_the_gaps_after_the_first_second() -> None:
    times = [0.0, 0.3, 1.0, 1.5, 2.0, 2.5, 3.0]

    assert average_of(times) == 2.0


def test_arrivals_between_two_moments_leave_the_later_one_out() -> None:
    assert between([1.0, 2.0, 2.5, 3.0], 2.0, 3.0) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (3.14159, "3.14"), (12.34, "12.3"), (123456.7, "123,457")],
)
def test_numbers_show_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_the_table_names_a_missed_goal() -> None:
    missed = Figure("bytes", "B", [50], goal="≤ 48 B").judge_median(lambda size: size <= 48)
    out = io.StringIO()
    show([Report("memory", [missed], ["7 delivered"])], out, "title")

    assert "missed" in out.getvalue()
    assert "memory: 7 delivered" in out.getvalue()


def test_a_wrong_sum_is_said() -> None:
    must(True, "fine")
    with pytest.raises(WrongSumError, match="one too many"):
        must(0, "one too many")
