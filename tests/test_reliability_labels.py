"""Label errors, drift and schemas against planted faults, SciPy and full enumeration."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from bigmodel_utils import data, reliability
from bigmodel_utils._checks import InputError

# Label errors


@pytest.fixture(scope="module")
def digits():
    loaded = data.load_digits()
    pixels = loaded.x[:, 3:-2:3, 3:-2:3, 0].reshape(len(loaded), -1)
    return pixels, loaded.y, *reliability.corrupt_labels(loaded.y, 0.1, num_classes=10, seed=1)


def test_planted_label_errors_are_found_out_of_sample(digits):
    pixels, _, labels, wrong = digits
    model = LogisticRegression(C=0.1, max_iter=500)
    table = cross_val_predict(model, pixels, labels, cv=5, method="predict_proba")
    report = reliability.find_label_issues(table, labels)
    detection = reliability.measure_detection(report.indices, wrong)
    assert detection.precision.value > 0.7
    assert detection.recall.value > 0.8
    assert report.share == pytest.approx(0.1, abs=0.03)
    repaired = labels.copy()
    repaired[report.indices] = report.suggested
    assert (repaired == digits[1]).mean() > (labels == digits[1]).mean() + 0.05
    worst = reliability.measure_detection(report.indices[:50], wrong)
    assert worst.precision.value > detection.precision.value  # the ranking says something


def test_twin_probabilities_of_the_training_examples_hide_the_errors(digits):
    pixels, _, labels, wrong = digits
    model = KNeighborsClassifier(1).fit(pixels, labels)
    report = reliability.find_label_issues(model.predict_proba(pixels), labels)
    assert reliability.measure_detection(report.indices, wrong).recall.value < 0.05


@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_a_model_that_knows_the_truth_finds_exactly_the_planted_errors(seed, num_classes, share):
    truth = np.repeat(np.arange(num_classes), 30)
    labels, wrong = reliability.corrupt_labels(truth, share, num_classes=num_classes, seed=seed)
    table = np.full((len(truth), num_classes), 0.1 / (num_classes - 1))
    table[np.arange(len(truth)), truth] = 0.9
    report = reliability.find_label_issues(table, labels)
    assert sorted(report.indices) == wrong.tolist()
    assert report.suggested.tolist() == truth[report.indices].tolist()


def test_twin_a_model_that_knows_nothing_finds_nothing():
    labels, _ = reliability.corrupt_labels(np.repeat([0, 1], 30), 0.2, num_classes=2)
    assert len(reliability.find_label_issues(np.full((60, 2), 0.5), labels).indices) == 0


def test_issues_are_listed_worst_first():
    table = [[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.99, 0.01], [0.1, 0.9], [0.1, 0.9]]
    report = reliability.find_label_issues(table, [0, 0, 1, 1, 1, 1])
    assert report.quality.tolist() == [0.9, 0.9, 0.3, 0.01, 0.9, 0.9]
    found = json.loads(json.dumps(report.to_dict()))
    assert found["indices"][0] == 3
    assert found["quality"] == sorted(found["quality"])


@given(st.integers(2, 10), st.floats(0, 1), st.integers(0, 10**6))
def test_as_many_labels_are_wrong_as_asked(num_classes, share, seed):
    truth = np.arange(57) % num_classes
    labels, wrong = reliability.corrupt_labels(truth, share, num_classes=num_classes, seed=seed)
    assert np.flatnonzero(labels != truth).tolist() == wrong.tolist()
    assert len(wrong) == round(share * 57)
    assert set(labels) <= set(range(num_classes))


def test_each_wrong_class_is_equally_likely():
    labels, _ = reliability.corrupt_labels(np.full(9000, 2), 1.0, num_classes=4)
    counts = np.bincount(labels, minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]]).pvalue > 1e-3


# Drift


def test_statistics_equal_those_of_scipy():
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(40, 2)), generator.normal(0.3, 1.2, size=(60, 2))
    before[:, 1], after[:, 1] = before[:, 1].round(), after[:, 1].round()  # ties
    report = reliability.measure_drift(before, after, num_permutations=99)
    for column, feature in enumerate(report.features):
        theirs = stats.ks_2samp(before[:, column], after[:, column])
        assert feature.statistic == pytest.approx(theirs.statistic)
    one = reliability.measure_drift(before[:, :1], after[:, :1], num_permutations=99)
    scale = np.concatenate([before[:, 0], after[:, 0]]).std()
    theirs = stats.energy_distance(before[:, 0] / scale, after[:, 0] / scale)
    assert one.statistic == pytest.approx(theirs**2)


def test_p_values_equal_the_full_enumeration():
    """Ten values can be dealt in 210 ways; some tie on purpose."""
    before, after = np.array([0.0, 1, 1, 5]), np.array([1.0, 4, 5, 6, 7, 7])
    pooled = np.concatenate([before, after])
    energies, distances = [], []
    for chosen in itertools.combinations(range(10), 4):
        rest = np.setdiff1d(np.arange(10), chosen)
        one, other = pooled[list(chosen)], pooled[rest]
        energies.append(stats.energy_distance(one, other))
        distances.append(stats.ks_2samp(one, other).statistic)
    report = reliability.measure_drift(before[:, None], after[:, None], num_permutations=20_000)
    for found, values, observed in (
        (report.p_value, energies, stats.energy_distance(before, after)),
        (report.features[0].p_value, distances, stats.ks_2samp(before, after).statistic),
    ):
        exact = np.mean(np.array(values) >= observed - 1e-9)
        assert 0.01 < exact < 0.5
        assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


@pytest.fixture(scope="module")
def undrifted():
    """Reports, and samples, where nothing drifts; features of unlike scale and shape."""
    results = []
    for trial in range(400):
        generator = np.random.default_rng(trial)
        sample = generator.normal(size=(50, 8)) * 10.0 ** np.arange(-3, 5)
        sample[:, 1:3] = generator.exponential(size=(50, 2)) + sample[:, :1]
        parts = sample[:20], sample[20:]
        report = reliability.measure_drift(*parts, num_permutations=99, seed=trial)
        results.append((report, parts))
    return results


def test_p_values_without_drift_are_uniform(undrifted):
    p_values = np.array([report.p_value for report, _ in undrifted])
    # They lie on a grid of hundredths; spread within a step they must be uniform.
    spread = p_values - np.random.default_rng(0).random(400) / 100
    assert stats.kstest(spread, "uniform").pvalue > 1e-3
    assert p_values.min() >= 0.01


def test_features_raise_one_alarm_in_twenty_together(undrifted):
    alarms = sum(bool(report.find_drifted(0.05)) for report, _ in undrifted)
    assert stats.binomtest(alarms, 400, 0.05, alternative="greater").pvalue > 1e-3


def test_twin_the_smallest_of_unadjusted_p_values_is_not_calibrated(undrifted):
    smallest = np.array(
        [
            min(
                stats.ks_2samp(one, other).pvalue
                for one, other in zip(before.T, after.T, strict=True)
            )
            for _, (before, after) in undrifted
        ]
    )
    assert stats.kstest(smallest, "uniform").pvalue < 1e-9
    assert (smallest <= 0.05).mean() > 0.15


def test_twin_a_bound_for_each_feature_cannot_be_reached_by_few_permutations():
    """Bonferroni asks 0.05 / 64; of 999 permutations the smallest p-value is 0.001."""
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(2, 100, 64))
    after[:, 7] += 3
    report = reliability.measure_drift(before, after)
    assert report.features[7].p_value == 0.001 > 0.05 / 64
    assert report.find_drifted() == ("7",)


def test_a_change_of_correlation_is_drift_of_no_feature():
    generator = np.random.default_rng(0)
    covariance = np.array([[1, 0.9], [0.9, 1]])
    before = generator.multivariate_normal([0, 0], covariance, 300)
    after = generator.multivariate_normal([0, 0], covariance * [[1, -1], [-1, 1]], 300)
    report = reliability.measure_drift(before, after)
    assert report.p_value == 0.001
    assert report.find_drifted() == ()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_drift_depends_on_no_unit_and_no_order(seed):
    generator = np.random.default_rng(seed)
    before, after = generator.normal(size=(12, 3)), generator.normal(1, 1, size=(15, 3))
    report = reliability.measure_drift(before, after, num_permutations=19)
    scaled = reliability.measure_drift(
        generator.permutation(before) * 1e4 - 7, after * 1e4 - 7, num_permutations=19
    )
    back = reliability.measure_drift(after, before, num_permutations=19)
    assert scaled.statistic == pytest.approx(report.statistic)
    assert back.statistic == pytest.approx(report.statistic)
    for one, other in zip(report.features, scaled.features, strict=True):
        assert one.statistic == pytest.approx(other.statistic)
    bent = reliability.measure_drift(before, after + np.array([2, 0, 0]), num_permutations=19)
    assert bent.statistic > report.statistic  # the twin: another shift, another distance


def test_images_and_large_samples_are_compared(digits):
    images = data.load_digits().x[:600]
    worse = data.corrupt_images(images[300:], "noise", severity=1)
    report = reliability.measure_drift(images[:300], worse, num_permutations=99, max_examples=200)
    assert report.num_reference == report.num_current == 200
    assert len(report.features) == 784
    assert report.p_value == 0.01
    same = reliability.measure_drift(images[:300], images[:300], num_permutations=99)
    assert same.statistic == pytest.approx(0, abs=1e-12)
    assert same.p_value == 1
    assert same.find_drifted() == ()


def test_drift_report_is_a_table():
    generator = np.random.default_rng(0)
    report = reliability.measure_drift(
        generator.normal(size=(9, 2)),
        generator.normal(size=(8, 2)),
        feature_names=["age", "<dose>"],
        num_permutations=19,
    )
    assert str(report).splitlines()[0].split() == ["Feature", "Distance", "p-value"]
    assert str(report).splitlines()[2].startswith("age ")
    assert "&lt;dose&gt;" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["features"][1]["name"] == "<dose>"


# Schemas

SCHEMA = pa.DataFrameSchema(
    {
        "age": pa.Column(int, pa.Check.in_range(0, 120)),
        "name": pa.Column(str, unique=True),
        "dose": pa.Column(float),
        "gone": pa.Column(int),
    },
    strict=True,
)


def test_all_problems_of_a_table_are_listed():
    table = {
        "age": [1, 200, -3],
        "name": ["a", "a", "b"],
        "dose": [1.0, math.nan, 2.0],
        "extra": [1, 2, 3],
    }
    report = reliability.check_schema(table, SCHEMA)
    found = {(p.column, p.requirement): (p.num_failures, p.rows) for p in report.problems}
    assert found == {
        (None, "column_in_schema"): (1, ()),
        (None, "column_in_dataframe"): (1, ()),
        ("age", "in_range(0, 120)"): (2, (1, 2)),
        ("name", "field_uniqueness"): (2, (0, 1)),
        ("dose", "not_nullable"): (1, (1,)),
    }
    assert not report.is_valid
    assert "200, -3" in str(report)
    assert "<td>in_range(0, 120)</td>" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["num_rows"] == 3


def test_twin_a_sound_table_has_no_problem():
    table = {"age": [1], "name": ["a"], "dose": [1.0], "gone": [1]}
    report = reliability.check_schema(table, SCHEMA)
    assert report.is_valid
    assert str(report) == "no problem"
    assert report.to_dict()["problems"] == []


@given(st.lists(st.integers(-50, 200), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_failing_rows_equal_a_plain_filter(ages):
    schema = pa.DataFrameSchema({"age": pa.Column(int, pa.Check.in_range(0, 120))})
    report = reliability.check_schema(pd.DataFrame({"age": ages}), schema)
    rows = [row for problem in report.problems for row in problem.rows]
    assert rows == [row for row, age in enumerate(ages) if not 0 <= age <= 120]
    assert report.is_valid == (not rows)


def test_a_model_class_serves_and_the_table_stays_as_it_is():
    class Patients(pa.DataFrameModel):
        age: float = pa.Field(ge=0, coerce=True)

    table = pd.DataFrame({"age": [1, 2]})
    assert reliability.check_schema(table, Patients).is_valid
    assert table["age"].dtype == np.int64


def test_a_check_that_fails_itself_is_a_problem_without_rows():
    schema = pa.DataFrameSchema({"age": pa.Column(int, pa.Check.ge(0))})
    report = reliability.check_schema({"age": ["x", 3]}, schema)
    assert not report.is_valid
    assert {problem.column for problem in report.problems} == {"age"}


GOOD = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: reliability.find_label_issues(GOOD, [0, 0, 1]), "probabilities"),
        (lambda: reliability.find_label_issues(GOOD, [0, 0, 0, 0]), "y"),
        (lambda: reliability.find_label_issues(GOOD, [0, 0, 0, 1]), "y"),
        (lambda: reliability.find_label_issues(GOOD, [0, 0, 1, 2]), "y"),
        (lambda: reliability.find_label_issues([[0.5, 0.1]] * 4, [0, 0, 1, 1]), "probabilities"),
        (lambda: reliability.find_label_issues([[math.nan, 1]] * 4, [0, 0, 1, 1]), "probabilities"),
        (lambda: reliability.find_label_issues([0.5, 0.5], [0, 1]), "probabilities"),
        (lambda: reliability.corrupt_labels([0, 1], 1.5, num_classes=2), "share"),
        (lambda: reliability.corrupt_labels([0, 1], 0.5, num_classes=1), "num_classes"),
        (lambda: reliability.measure_drift([[1.0], [math.nan]], [[1.0], [2.0]]), "reference"),
        (lambda: reliability.measure_drift([[1.0], [2.0]], [[1.0]]), "current"),
        (lambda: reliability.measure_drift([1.0, 2.0], [1.0, 2.0]), "reference"),
        (lambda: reliability.measure_drift([[1.0, 2], [3, 4]], [[1.0], [2.0]]), "current"),
        (
            lambda: reliability.measure_drift([[1.0], [2]], [[1.0], [2]], feature_names=["a", "b"]),
            "feature_names",
        ),
        (
            lambda: reliability.measure_drift([[1.0], [2]], [[1.0], [2]], num_permutations=9),
            "num_permutations",
        ),
        (lambda: reliability.check_schema({"a": [1], "b": [1, 2]}, SCHEMA), "table"),
        (lambda: reliability.check_schema({}, SCHEMA), "table"),
        (lambda: reliability.check_schema([1, 2], SCHEMA), "table"),
        (lambda: reliability.check_schema({"a": 1}, SCHEMA), "table"),
        (lambda: reliability.check_schema({"a": [1]}, {"a": int}), "schema"),
        (
            lambda: reliability.check_schema(
                {"a": [1]}, pa.DataFrameSchema({}, drop_invalid_rows=True)
            ),
            "schema",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}.*` .* Received: .* Fix: "):
        call()
