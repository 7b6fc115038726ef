"""The adapters over shap against brute force; the process's random state is left alone."""

# ruff: noqa: NPY002 - the process-wide generator is what must be left alone
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import explain_with_shapley, solve_game

pytest.importorskip("shap")

NUMBERS = np.random.default_rng(0)
ROWS, BACKGROUND = NUMBERS.normal(size=(2, 6)), NUMBERS.normal(size=(15, 6))
FIRST, SECOND = NUMBERS.normal(size=(6, 9)), NUMBERS.normal(size=(9, 3))


def run_network(x):
    return np.tanh(x @ FIRST) @ SECOND


def solve_row(row):
    def game(there):
        mixed = np.where(there[:, None], row, BACKGROUND)
        return np.stack([run_network(each).mean(axis=0) for each in mixed])

    return solve_game(game, 6)


def test_exact_equals_brute_force():
    found = explain_with_shapley(run_network, ROWS, background=BACKGROUND, targets=[2, 0])
    known = np.stack([solve_row(row) for row in ROWS])
    assert found.values == pytest.approx(known[..., [2, 0]], abs=1e-7)
    assert found.values != pytest.approx(known[..., [0, 2]], abs=1e-2)  # the twin: order of targets


@pytest.mark.parametrize("method", ["permutation", "partition"])
def test_others_add_up_and_come_near(method):
    found = explain_with_shapley(run_network, ROWS, background=BACKGROUND, method=method)
    known = np.stack([solve_row(row) for row in ROWS])
    assert found.additivity_errors.max() < 1e-6
    limit = {"permutation": 0.1, "partition": 0.8}[method]
    assert np.linalg.norm(found.values - known) < limit * np.linalg.norm(known)


def test_the_whole_background_is_used():
    """shap keeps 100 rows by default: the mean would be another."""
    background = np.zeros((400, 2))
    background[300:] = 8
    found = explain_with_shapley(lambda x: x[:, :1], np.ones((1, 2)), background=background)
    assert found.base_values[0, 0] == 2
    assert found.values[0, :, 0] == pytest.approx([-1, 0], abs=1e-9)


def test_images_by_place():
    images = NUMBERS.random((1, 4, 4, 1))
    found = explain_with_shapley(
        lambda x: x[:, 1, 2], images, background=np.zeros((1, 4, 4, 1)), method="partition"
    )
    assert found.values.shape == (1, 4, 4, 1, 1)
    assert found.values[0, 1, 2, 0, 0] == pytest.approx(images[0, 1, 2, 0], abs=1e-6)


@pytest.mark.parametrize("method", ["exact", "permutation", "partition"])
def test_random_state_is_left_alone(method):
    np.random.seed(5)
    before = np.random.get_state()
    one, same = (
        explain_with_shapley(run_network, ROWS, background=BACKGROUND, method=method, seed=1)
        for _ in range(2)
    )
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    assert np.array_equal(one.values, same.values)


def test_random_state_is_left_alone_by_a_failure():
    def fail(x):
        if len(x) > 15:
            raise RuntimeError("no")
        return x[:, :1]

    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError):
        explain_with_shapley(fail, ROWS, background=BACKGROUND, method="permutation")
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"method": "kernel"}, "method"),
        ({"inputs": np.zeros((1, 17)), "background": np.zeros((1, 17))}, "inputs"),
        ({"background": BACKGROUND[:, :3]}, "background"),
        ({"background": np.zeros((1001, 6))}, "background"),
        ({"seed": -1}, "seed"),
        (
            {
                "inputs": np.zeros((1, 4, 4, 1)),
                "background": np.zeros((2, 4, 4, 1)),
                "method": "partition",
                "model": lambda x: x[:, 0, 0],
            },
            "background",
        ),
    ],
)
def test_bad_input(change, name):
    options = {"model": run_network, "inputs": ROWS, "background": BACKGROUND} | change
    with pytest.raises(InputError) as error:
        explain_with_shapley(options.pop("model"), options.pop("inputs"), **options)
    assert error.value.name == name
