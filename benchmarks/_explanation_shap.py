"""KernelSHAP and expected gradients beside `shap`: time, and error for the evaluations asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import shap
import tensorflow as tf
from _explanation_arms import FLOOR, OWN, Arms
from _explanation_lime import build_image_network, load_table
from keras import layers
from sklearn.ensemble import GradientBoostingClassifier

from bigmodel_utils import benchmark, data, explanation

# shap passes a list of one input, which Keras remarks upon at each call.
warnings.filterwarnings("ignore", message="The structure of `inputs`")

Game = Callable[[np.ndarray], np.ndarray]
NUM_PLAYERS = 14
EVALUATIONS = (112, 224, 448, 896)


def time_kernel_shap() -> tuple[Arms, float]:
    """Ten tumors of 30 features, 1,000 coalitions, a background of 50; two outputs."""
    table = load_table().astype(np.float32)
    rows, known = table[:10], table[100:150]
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(2),
        ]
    )
    call = tf.function(lambda x: model(x, training=False), reduce_retracing=True)

    def predict(x: np.ndarray) -> np.ndarray:
        return np.asarray(call(tf.convert_to_tensor(np.asarray(x, dtype=np.float32))))

    def run_peer(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        peer = shap.KernelExplainer(function, known)
        return np.asarray(peer.shap_values(rows, nsamples=1000, l1_reg=False, silent=True))

    def run_own() -> explanation.Explanation:
        return explanation.explain_with_kernel_shap(model, rows, background=known, budget=1000)

    found = run_own()
    batches = np.repeat(known, 1000, axis=0)
    batched = explanation.build_predict_fn(model, batch_size=2**14)
    arms: Arms = {
        "shap": lambda: run_peer(predict),
        OWN: run_own,
        FLOOR: lambda: [batched(batches) for _ in rows],
        "shap, as documented": lambda: run_peer(lambda x: model.predict(x, verbose=0)),
    }
    # Other draws of the same size: the two differ by chance.
    return arms, float(np.abs(found.values - run_peer(predict)).max())


def time_gradients(num_rows: int) -> tuple[Arms, float]:
    """Digits, 200 points for each, ten outputs; the floor has the backward passes too."""
    model = build_image_network("linear")
    images = data.load_digits().x
    rows, known = images[:num_rows], images[100:150]
    peer = shap.GradientExplainer(model, known)

    def run_own() -> explanation.Explanation:
        return explanation.explain_with_expected_gradients(
            model, rows, background=known, num_samples=200
        )

    @tf.function
    def pass_through(points: Any) -> list[Any]:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = model(points, training=False)
            columns = [outputs[:, target] for target in range(10)]
        # The whole gradients are handed out: what is not read would not be computed.
        return [tape.gradient(column, points) for column in columns]

    points = tf.constant(np.repeat(known, 4, axis=0))
    arms: Arms = {
        "shap, built once": lambda: peer.shap_values(rows, nsamples=200, rseed=0),
        "shap": lambda: shap.GradientExplainer(model, known).shap_values(
            rows, nsamples=200, rseed=0
        ),
        OWN: run_own,
        FLOOR: lambda: [pass_through(points) for _ in rows],
    }
    theirs = np.asarray(peer.shap_values(rows, nsamples=200, rseed=0))
    return arms, float(np.abs(run_own().values - theirs).max())


def measure_errors(num_seeds: int) -> dict[str, Any]:
    """Error against evaluations in games whose values are known from all coalitions."""
    report: dict[str, Any] = {"evaluations": list(EVALUATIONS), "num_seeds": num_seeds}
    print(f"games of {NUM_PLAYERS} players, root mean square error over {num_seeds} seeds")
    for name, game in make_games():
        known = explanation.solve_game(game, NUM_PLAYERS)
        squares = {
            arm: np.array(
                [
                    [_measure_square(run(game, budget, seed), known) for seed in range(num_seeds)]
                    for budget in EVALUATIONS
                ]
            )
            for arm, run in {OWN: run_own_game, "shap": run_peer_game}.items()
        }
        ratio = compare_evaluations(squares["shap"], squares[OWN])
        errors = {arm: np.sqrt(each.mean(axis=1)).tolist() for arm, each in squares.items()}
        report[name] = {**errors, "evaluations_ratio": ratio.to_dict()}
        shown = "  ".join(
            f"{a:.3f}/{b:.3f}" for a, b in zip(errors["shap"], errors[OWN], strict=True)
        )
        print(f"  {name:<28}shap/own {shown}   evaluations for equal error {ratio:.2f}", flush=True)
    return report


def compare_evaluations(peer: np.ndarray, own: np.ndarray) -> benchmark.Interval:
    """How many times the evaluations the peer needs for an equal error.

    Both errors fall along lines of one slope in logarithms of evaluations; the distance between
    the lines is the ratio. The interval is over seeds.

    Args:
        peer: squared errors `(num_budgets, num_seeds)`.
        own: the library's, alike.
    """
    steps = np.log(EVALUATIONS)
    steps = steps - steps.mean()

    def find_ratio(seeds: np.ndarray) -> float:
        logs = [np.log(each[:, seeds].mean(axis=1)) / 2 for each in (peer, own)]
        slope = sum(steps @ each for each in logs) / (2 * steps @ steps)
        return float(np.exp((logs[0] - logs[1]).mean() / -slope))

    numbers = np.random.default_rng(0)
    count = own.shape[1]
    drawn = [find_ratio(numbers.integers(count, size=count)) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return benchmark.Interval(find_ratio(np.arange(count)), float(low), float(high))


def make_games() -> Iterator[tuple[str, Game]]:
    """Games with a worth for each coalition, looked up; each holds more than pairs."""
    dataset = data.load_breast_cancer()
    table = load_table()[:, :NUM_PLAYERS]
    row, known = table[0], table[100:120]
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((NUM_PLAYERS,)), layers.Dense(32, activation="tanh"), layers.Dense(1)]
    )
    network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    network.fit(table, dataset.y, epochs=30, verbose=0)
    forest = GradientBoostingClassifier(random_state=0).fit(table, dataset.y)
    ask = explanation.build_predict_fn(network, batch_size=2**14)
    models = {
        "network, log odds": ask,
        "network, probability": lambda x: 1 / (1 + np.exp(-ask(x))),
        "boosted trees, log odds": lambda x: forest.decision_function(x)[:, None],
    }
    for name, run in models.items():
        yield name, _look_up(_make_model_game(run, row, known))
    numbers = np.random.default_rng(0)
    costs = numbers.exponential(size=NUM_PLAYERS)
    yield "the largest of them", _look_up(lambda there: (there * costs).max(axis=1))
    votes = numbers.integers(1, 20, NUM_PLAYERS)
    yield "a majority of votes", _look_up(lambda there: (2 * (there @ votes) > votes.sum()) * 1.0)


def _make_model_game(run: Game, row: np.ndarray, known: np.ndarray) -> Game:
    return lambda there: np.mean([run(np.where(there, row, each))[:, 0] for each in known], axis=0)


def _look_up(game: Game) -> Game:
    places = 1 << np.arange(NUM_PLAYERS)
    worths = game((np.arange(2**NUM_PLAYERS)[:, None] & places) > 0)
    return lambda there: np.asarray(worths[np.asarray(there, dtype=bool) @ places])


def _measure_square(found: np.ndarray, known: np.ndarray) -> float:
    return float(np.sum((found - known) ** 2) / np.sum(known**2))


def run_own_game(game: Game, budget: int, seed: int) -> np.ndarray:
    """Values of the players by the library."""
    found = explanation.explain_with_kernel_shap(
        lambda x: game(x > 0)[:, None],
        np.ones((1, NUM_PLAYERS)),
        background=np.zeros((1, NUM_PLAYERS)),
        budget=budget,
        seed=seed,
    )
    return np.asarray(found.values[0, :, 0])


def run_peer_game(game: Game, budget: int, seed: int) -> np.ndarray:
    """Values of the players by `shap`, without the penalty that drops all but ten of them."""
    np.random.seed(seed)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = shap.KernelExplainer(lambda x: game(x > 0), np.zeros((1, NUM_PLAYERS)))
        found = peer.shap_values(
            np.ones((1, NUM_PLAYERS)), nsamples=budget, l1_reg=False, silent=True
        )
    return np.asarray(found).ravel()
