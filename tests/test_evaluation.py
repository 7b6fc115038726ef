"""Evaluation against closed forms, SciPy and brute force; each property with its twin."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from bigmodel_utils import evaluation
from bigmodel_utils._checks import InputError
from bigmodel_utils.benchmark import estimate_proportion_interval


def draw_predictions(num_examples, *, num_classes=4, scale=2.0, seed=0):
    """Logits, and labels drawn from exactly the probabilities that they state."""
    generator = np.random.default_rng(seed)
    logits = scale * generator.normal(size=(num_examples, num_classes))
    edges = evaluation.apply_temperature(logits, 1.0).cumsum(axis=1)
    return logits, (generator.random((num_examples, 1)) > edges[:, :-1]).sum(axis=1)


# Slices


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 10**6))
def test_confusions_equal_brute_force(num_classes, num_examples, seed):
    generator = np.random.default_rng(seed)
    y, predicted = generator.integers(num_classes, size=(2, num_examples))
    counts = evaluation.count_confusions(y, predicted, num_classes=num_classes)
    for true in range(num_classes):
        for guess in range(num_classes):
            assert counts[true, guess] == ((y == true) & (predicted == guess)).sum()


def test_confusions_of_transposed_roles_differ():
    """The twin: rows are true, columns predicted, and the test above can tell."""
    counts = evaluation.count_confusions([0, 0, 1], [1, 1, 0], num_classes=2)
    assert counts.tolist() == [[0, 2], [1, 0]] != counts.T.tolist()


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_slices_have_the_exact_interval_of_scipy(num_examples, drawn):
    num_correct = drawn.draw(st.integers(0, num_examples))
    correct = np.arange(num_examples) < num_correct
    whole = np.ones(num_examples, bool)
    found = evaluation.measure_slices(correct, {"one": whole, "other": whole}).slices["other"]
    theirs = stats.binomtest(num_correct, num_examples).proportion_ci(0.975, method="exact")
    assert found.low == pytest.approx(theirs.low, abs=1e-9)
    assert found.high == pytest.approx(theirs.high, abs=1e-9)
    assert found.confidence == pytest.approx(0.975)


def test_twin_wilson_is_another_interval():
    theirs = stats.binomtest(176, 180).proportion_ci(0.998, method="exact")
    wilson = estimate_proportion_interval(176, 180, confidence=0.998)
    assert wilson.low != pytest.approx(theirs.low, abs=1e-3)


def test_slice_report_names_the_worst():
    correct = np.array([1] * 90 + [0] * 10)
    masks = {"first": np.arange(100) < 50, "second": np.arange(100) >= 50}
    report = evaluation.measure_slices(correct, masks)
    assert report.worst == "second"
    assert report.num_examples == {"first": 50, "second": 50}
    assert report.overall == estimate_proportion_interval(90, 100)
    assert report.slices["second"].value == 0.8
    assert json.loads(json.dumps(report.to_dict()))["worst"] == "second"


def count_joint_coverage(adjust, *, num_slices=12, size=150, num_trials=600):
    """Share of samples in which every one of the slices' intervals holds the true value."""
    generator = np.random.default_rng(1)
    names = np.arange(num_slices * size) // size
    masks = {str(k): names == k for k in range(num_slices)}
    hits = 0
    for _ in range(num_trials):
        report = evaluation.measure_slices(
            generator.random(len(names)) < 0.975, masks, confidence=adjust(num_slices)
        )
        hits += all(part.low <= 0.975 <= part.high for part in report.slices.values())
    return hits / num_trials


def test_intervals_of_all_slices_hold_together():
    assert count_joint_coverage(lambda _: 0.95) > 0.94


def test_twin_intervals_made_for_one_slice_do_not_hold_together():
    assert count_joint_coverage(lambda k: 1 - k * 0.05) < 0.75


def test_worst_errors_equal_a_sort_of_the_losses():
    logits, y = draw_predictions(200)
    table = evaluation.apply_temperature(logits, 1.0)
    found = evaluation.find_worst_errors(table, y, num_errors=7)
    losses = -np.log(table[np.arange(200), y])
    wrong = table.argmax(axis=1) != y
    assert wrong[found].all()
    assert found.tolist() == sorted(np.flatnonzero(wrong), key=lambda i: -losses[i])[:7]
    assert len(evaluation.find_worst_errors(table, table.argmax(axis=1))) == 0


def evaluate_by_example(values, size):
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return sum(part.sum() for part in parts) / len(values)


def evaluate_by_batch(values, size):
    return np.mean([values[i : i + size].mean() for i in range(0, len(values), size)])


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_mean_over_examples_does_not_move(num_examples, seed):
    values = np.random.default_rng(seed).random(num_examples)
    sizes = list(range(1, num_examples + 1))
    spread = evaluation.measure_batch_size_spread(
        lambda size: evaluate_by_example(values, size), sizes
    )
    assert spread < 1e-12


def test_twin_mean_of_batch_means_moves():
    values = np.array([0.0] * 32 + [1.0])
    spread = evaluation.measure_batch_size_spread(
        lambda size: evaluate_by_batch(values, size), [11, 32]
    )
    assert spread == pytest.approx(1 / 2 - 1 / 33)


# Calibration


def test_calibration_by_hand():
    table = np.array([[0.6, 0.4]] * 10 + [[0.05, 0.95]] * 20)
    y = [0] * 5 + [1] * 5 + [1] * 20
    report = evaluation.measure_calibration(table, y, num_bins=2)
    assert report.expected_error == pytest.approx((10 * 0.1 + 20 * 0.05) / 30)
    assert [part.num_examples for part in report.bins] == [10, 20]
    assert report.bins[0].confidence == pytest.approx(0.6)
    assert report.bins[0].accuracy.value == 0.5
    brier = (5 * 2 * 0.4**2 + 5 * 2 * 0.6**2 + 20 * 2 * 0.05**2) / 30
    assert report.brier_score == pytest.approx(brier)
    loss = -(5 * math.log(0.6) + 5 * math.log(0.4) + 20 * math.log(0.95)) / 30
    assert report.log_loss == pytest.approx(loss)
    assert json.loads(json.dumps(report.to_dict()))["bins"][1]["num_examples"] == 20


@given(st.integers(0, 10**6), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_calibration_does_not_depend_on_the_order_of_examples(seed, num_bins):
    logits, y = draw_predictions(60, seed=seed)
    table = evaluation.apply_temperature(logits, 1.0).round(1)  # ties on purpose
    table /= table.sum(axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(60)
    one, other = (
        evaluation.measure_calibration(table[rows], y[rows], num_bins=num_bins, num_resamples=1)
        for rows in (np.arange(60), order)
    )
    assert one.expected_error == pytest.approx(other.expected_error)
    assert sum(part.num_examples for part in one.bins) == 60
    assert len(one.bins) <= num_bins


def test_twin_bins_cut_by_position_depend_on_the_order():
    confidence = np.full(4, 0.5)
    correct = np.array([1, 1, 0, 0])

    def cut_by_position(rows):
        parts = np.array_split(rows[np.argsort(confidence[rows], kind="stable")], 2)
        return sum(abs((confidence[part] - correct[part]).sum()) for part in parts) / 4

    assert cut_by_position(np.array([0, 1, 2, 3])) != cut_by_position(np.array([0, 2, 1, 3]))


def test_bins_of_distinct_confidences_have_equal_mass():
    logits, y = draw_predictions(450)
    bins = evaluation.measure_calibration(evaluation.apply_temperature(logits, 1.0), y).bins
    assert [part.num_examples for part in bins] == [30] * 15


def test_a_calibrated_model_shows_the_error_of_chance():
    errors, floors = [], []
    for seed in range(30):
        logits, y = draw_predictions(500, seed=seed)
        report = evaluation.measure_calibration(
            evaluation.apply_temperature(logits, 1.0), y, num_resamples=100
        )
        errors.append(report.expected_error)
        floors.append(report.chance_error)
        assert report.chance_error < report.chance_error_high
    assert np.mean(errors) == pytest.approx(np.mean(floors), rel=0.1)
    assert np.mean(floors) > 0.02  # the bias that a reader must know of


def test_an_overconfident_model_shows_more():
    logits, y = draw_predictions(500)
    report = evaluation.measure_calibration(evaluation.apply_temperature(logits, 0.4), y)
    assert report.expected_error > 2 * report.chance_error_high


def test_chance_error_equals_the_closed_form_of_one_bin():
    """All confidences alike: the error is the mean absolute deviation of a binomial."""
    table = np.tile([0.7, 0.3], (100, 1))
    report = evaluation.measure_calibration(table, [0] * 100, num_resamples=20_000)
    counts = np.arange(101)
    exact = (stats.binom.pmf(counts, 100, 0.7) * np.abs(counts / 100 - 0.7)).sum()
    assert report.chance_error == pytest.approx(exact, rel=0.02)


def test_temperature_of_scaled_logits_is_the_scale():
    """Logits scaled by 3 want a temperature three times as high, exactly."""
    logits, y = draw_predictions(300)
    base = evaluation.fit_temperature(logits, y)
    assert evaluation.fit_temperature(3 * logits, y) == pytest.approx(3 * base, rel=1e-9)
    assert base == pytest.approx(1, abs=0.25)


def test_temperature_has_its_closed_form_for_two_classes():
    """A gap of g that is right with frequency q wants T = g / ln(q / (1 - q))."""
    logits = np.tile([2.0, 0.0], (10, 1))
    found = evaluation.fit_temperature(logits, [0] * 8 + [1] * 2)
    assert found == pytest.approx(2 / math.log(0.8 / 0.2), rel=1e-9)


@given(st.integers(0, 10**6), st.floats(0.3, 4))
@settings(max_examples=25, deadline=None)
def test_temperature_equals_a_general_minimizer(seed, scale):
    logits, y = draw_predictions(80, seed=seed)
    logits = scale * logits

    def loss(log_temperature, rows=y):
        scores = special.log_softmax(logits / math.exp(log_temperature), axis=1)
        return -scores[np.arange(80), rows].mean()

    best = optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded").x
    found = math.log(evaluation.fit_temperature(logits, y))
    assert loss(found) <= loss(best) + 1e-9
    shuffled = np.roll(y, 1)
    assert loss(best, shuffled) > loss(best)  # the twin: other labels, another loss


def test_log_probabilities_serve_as_logits():
    logits, y = draw_predictions(100)
    table = special.log_softmax(logits, axis=1)
    assert evaluation.fit_temperature(table, y) == pytest.approx(
        evaluation.fit_temperature(logits, y)
    )


@given(st.floats(0.05, 50), st.integers(0, 10**6))
def test_temperature_changes_no_prediction(temperature, seed):
    logits, _ = draw_predictions(20, seed=seed)
    table = evaluation.apply_temperature(logits, temperature)
    assert np.array_equal(table.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(table, special.softmax(logits / temperature, axis=1))


# Comparison


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_test_equals_scipy(won, lost):
    correct = [1] * won + [0] * lost + [1] * 7
    baseline = [0] * won + [1] * lost + [1] * 7
    found = evaluation.compare_accuracy(correct, baseline, num_resamples=1)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert found.disagreement == (won + lost) / (won + lost + 7)


def test_twin_the_unpaired_test_gives_another_value():
    correct, baseline = [1] * 50 + [0] * 50, [1] * 40 + [0] * 60
    paired = evaluation.compare_accuracy(correct, baseline).p_value
    unpaired = stats.fisher_exact([[50, 50], [40, 60]]).pvalue
    assert paired == pytest.approx(2 * 0.5**10)
    assert unpaired > 0.1


def test_exact_test_stays_exact_for_many_examples():
    found = evaluation.compare_accuracy([1] * 52_000 + [0] * 48_000, [0] * 52_000 + [1] * 48_000)
    assert found.p_value == pytest.approx(stats.binomtest(52_000, 100_000).pvalue, rel=1e-6)


def test_bootstrap_of_counts_equals_bootstrap_of_examples():
    generator = np.random.default_rng(0)
    correct, baseline = generator.random((2, 300)) < [[0.9], [0.85]]
    found = evaluation.compare_accuracy(correct, baseline, num_resamples=20_000).difference
    gaps = correct.astype(float) - baseline
    theirs = stats.bootstrap(
        (gaps,), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert found.value == pytest.approx(gaps.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.004)
    assert found.high == pytest.approx(theirs.high, abs=0.004)


def test_comparison_turns_its_sign_with_its_arguments():
    one, other = [1, 1, 1, 0], [0, 0, 1, 1]
    forth, back = (evaluation.compare_accuracy(*pair) for pair in ((one, other), (other, one)))
    assert (forth.num_won, forth.num_lost) == (back.num_lost, back.num_won) == (2, 1)
    assert forth.difference.value == -back.difference.value == 0.25
    assert forth.p_value == back.p_value
    assert json.loads(json.dumps(forth.to_dict()))["num_examples"] == 4


def test_flip_rate_equals_the_exact_hypergeometric_sum():
    won, lost, drawn, size = 9, 5, 26, 10
    correct, baseline = (
        [1] * won + [0] * lost + [1] * drawn,
        [0] * won + [1] * lost + [1] * drawn,
    )
    found = evaluation.measure_flip_rate(correct, baseline, num_examples=size, num_draws=100_000)
    exact = {1: 0.0, 0: 0.0, -1: 0.0}
    for a in range(won + 1):
        for b in range(lost + 1):
            if 0 <= size - a - b <= drawn:
                ways = math.comb(won, a) * math.comb(lost, b) * math.comb(drawn, size - a - b)
                exact[int(np.sign(a - b))] += ways / math.comb(won + lost + drawn, size)
    assert found.agreed == pytest.approx(exact[1], abs=0.006)
    assert found.tied == pytest.approx(exact[0], abs=0.006)
    assert found.flipped == pytest.approx(exact[-1], abs=0.006)
    assert exact[1] != pytest.approx(exact[-1], abs=0.1)  # the twin: the sides are told apart
    mirrored = evaluation.measure_flip_rate(baseline, correct, num_examples=size, num_draws=100_000)
    assert mirrored.agreed == pytest.approx(found.agreed, abs=0.006)
    assert sum(found.to_dict().values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        # Shares 0.45 and 0.05 of discordant pairs: Connor 1987, formula of page 209.
        ({"difference": 0.4, "disagreement": 0.5}, 23),
        ({"difference": 0.4, "disagreement": 0.5, "power": 0.9}, 29),
    ],
)
def test_sample_size_equals_the_published_formula(arguments, published):
    difference, disagreement = arguments.pop("difference"), arguments.pop("disagreement")
    found = evaluation.estimate_num_test_examples(difference, disagreement, **arguments)
    assert found == published


def measure_power(num_examples, *, difference, disagreement, num_trials=4000):
    """Share of samples in which McNemar's statistic leaves the two-sided bound."""
    won, lost = (disagreement + difference) / 2, (disagreement - difference) / 2
    counts = np.random.default_rng(0).multinomial(
        num_examples, [won, lost, 1 - disagreement], size=num_trials
    )
    apart = counts[:, 0] - counts[:, 1]
    return np.mean(np.abs(apart) > stats.norm.ppf(0.975) * np.sqrt(counts[:, 0] + counts[:, 1]))


def test_that_many_examples_give_the_power():
    size = evaluation.estimate_num_test_examples(0.02, 0.05)
    assert measure_power(size, difference=0.02, disagreement=0.05) == pytest.approx(0.8, abs=0.03)
    fewer = measure_power(size // 2, difference=0.02, disagreement=0.05)
    assert fewer < 0.7  # the twin


def test_more_comparisons_need_more_examples():
    sizes = [
        evaluation.estimate_num_test_examples(0.01, 0.03, num_comparisons=count)
        for count in (1, 8, 1000)
    ]
    assert sizes == sorted(set(sizes))


# Robustness


def fade(x, kind, *, severity):
    return x * (1 - 0.4 * severity) if kind == "fade" else x


def predict_by_first_pixel(x):
    sure = np.where(x[:, 0] > 0.5, 0.9, 0.2)
    return np.stack([sure, 1 - sure], axis=1)


def test_robustness_counts_what_the_predictions_say():
    report = evaluation.measure_robustness(
        predict_by_first_pixel,
        (np.array([[1.0], [1.0], [0.0], [0.0]]), [0, 0, 1, 0]),
        corrupt=fade,
        kinds=["fade", "none"],
        severities=[0, 1, 2],
    )
    assert report.accuracy == {"fade": [0.75, 0.75, 0.25], "none": [0.75] * 3}
    assert report.retained == pytest.approx(1 / 3)
    assert report.correct.shape == report.confidence.shape == (2, 3, 4)
    assert report.confidence[0, 2].tolist() == [0.8] * 4
    assert json.loads(json.dumps(report.to_dict()))["accuracy"]["none"] == [0.75] * 3


def test_a_predictor_that_ignores_its_input_retains_everything():
    """The twin: `retained` is a ratio, so a model that is always bad looks robust."""
    report = evaluation.measure_robustness(
        lambda x: np.tile([0.6, 0.4], (len(x), 1)),
        (np.ones((4, 1)), [0, 0, 1, 1]),
        corrupt=fade,
        kinds=["fade"],
    )
    assert report.retained == 1.0


TABLE = [[0.5, 0.5], [0.9, 0.1]]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: evaluation.count_confusions([0], [2], num_classes=2), "predicted"),
        (lambda: evaluation.count_confusions([0, 1], [1], num_classes=2), "y"),
        (lambda: evaluation.measure_slices([1, 2], {"a": [1, 1]}), "correct"),
        (lambda: evaluation.measure_slices([1, 0], {}), "slices"),
        (lambda: evaluation.measure_slices([1, 0], {"a": [0, 0]}), r"slices\['a'\]"),
        (lambda: evaluation.measure_slices([1, 0], {"a": [1]}), "correct"),
        (lambda: evaluation.find_worst_errors([[0.5, 0.2]], [0]), "probabilities"),
        (lambda: evaluation.find_worst_errors([[1.5, -0.5]], [0]), "probabilities"),
        (lambda: evaluation.find_worst_errors(TABLE, [0, 2]), "y"),
        (lambda: evaluation.find_worst_errors(TABLE, [0, 1], num_errors=0), "num_errors"),
        (lambda: evaluation.measure_batch_size_spread(float, [3]), "batch_sizes"),
        (lambda: evaluation.measure_batch_size_spread(lambda _: math.nan, [3, 4]), "evaluate"),
        (lambda: evaluation.measure_calibration(TABLE, [0]), "probabilities"),
        (lambda: evaluation.measure_calibration(TABLE, [0, 1], num_bins=0), "num_bins"),
        (lambda: evaluation.fit_temperature([[2.0, 1.0]] * 3, [0, 0, 0]), "y"),
        (lambda: evaluation.fit_temperature([[2.0, 1.0]] * 3, [1, 1, 0]), "y"),
        (lambda: evaluation.fit_temperature([[2.0, -np.inf]], [0]), "logits"),
        (lambda: evaluation.apply_temperature(TABLE, 0.0), "temperature"),
        (lambda: evaluation.compare_accuracy([1, 0], [1]), "correct"),
        (lambda: evaluation.compare_accuracy([1, 0], [0.5, 1]), "baseline"),
        (lambda: evaluation.measure_flip_rate([1, 0], [0, 1], num_examples=1), "baseline"),
        (lambda: evaluation.measure_flip_rate([1, 1], [0, 1], num_examples=3), "num_examples"),
        (lambda: evaluation.estimate_num_test_examples(0.0, 0.1), "difference"),
        (lambda: evaluation.estimate_num_test_examples(0.2, 0.1), "disagreement"),
        (
            lambda: evaluation.measure_robustness(
                predict_by_first_pixel, (np.ones((1, 1)), [0]), corrupt=fade, kinds=[]
            ),
            "kinds",
        ),
        (
            lambda: evaluation.measure_robustness(
                predict_by_first_pixel,
                (np.ones((1, 1)), [0]),
                corrupt=fade,
                kinds=["fade"],
                severities=[1, 2],
            ),
            "severities",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}.*` .* Received: .* Fix: "):
        call()
