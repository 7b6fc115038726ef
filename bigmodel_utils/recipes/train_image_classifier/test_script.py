"""Shows that the three sets are apart and that the script learns."""

from itertools import combinations

from bigmodel_utils import data
from bigmodel_utils.recipes.train_image_classifier import script


def test_no_image_has_two_duties() -> None:
    for first, second in combinations(script.load_sets().values(), 2):
        assert data.count_overlap(first.keys, second.keys) == 0


def test_three_epochs_beat_guessing_by_far() -> None:
    assert script.main(["--epochs", "3"]).low > 0.6
