"""Corrupted images: identity at zero, growing with severity, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.data import CORRUPTIONS, corrupt_images

IMAGES = np.random.default_rng(0).random((6, 12, 10, 1), "float32")
SQUARE = np.zeros((40, 20, 20, 1), "float32")
SQUARE[:, 8:12, 8:12] = 1

every_kind = pytest.mark.parametrize("kind", CORRUPTIONS)


@every_kind
def test_zero_severity_is_the_identity_and_a_copy(kind):
    same = corrupt_images(IMAGES, kind, severity=0)
    np.testing.assert_array_equal(same, IMAGES)
    assert not np.shares_memory(same, IMAGES)


def check_is_an_image(images, like):
    assert images.shape == like.shape
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1


@given(st.sampled_from(CORRUPTIONS), st.integers(1, 5), st.integers(0, 10**9))
def test_result_is_an_image_and_repeats(kind, severity, seed):
    one, again = (corrupt_images(IMAGES, kind, severity=severity, seed=seed) for _ in range(2))
    check_is_an_image(one, IMAGES)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, IMAGES)


def test_twin_noise_that_is_not_clipped_is_no_image():
    noisy = IMAGES + np.random.default_rng(0).normal(size=IMAGES.shape).astype("float32")
    with pytest.raises(AssertionError):
        check_is_an_image(noisy, IMAGES)


@every_kind
def test_damage_grows_with_severity(kind):
    damage = [
        np.abs(corrupt_images(SQUARE, kind, severity=severity) - SQUARE).mean()
        for severity in range(6)
    ]
    # A square shifted by more than its side overlaps nothing of itself: no more to lose.
    steps = np.diff(damage[:5] if kind == "shift" else damage)
    assert (steps > 0).all()


@pytest.mark.parametrize("kind", ["noise", "shift", "occlusion"])
def test_seeds_differ(kind):
    one, other = (corrupt_images(SQUARE, kind, severity=3, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_noise_has_the_stated_deviation():
    grey = np.full((200, 20, 20, 1), 0.5)
    noise = corrupt_images(grey, "noise", severity=1) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("severity", [2, 4])
def test_blur_of_a_point_has_the_stated_deviation(severity):
    point = np.zeros((1, 41, 41, 1))
    point[0, 20, 20] = 1
    image = corrupt_images(point, "blur", severity=severity)[0, :, :, 0]
    assert image.sum() == pytest.approx(1, abs=1e-5)
    offsets = np.arange(41) - 20
    variance = (image.sum(axis=0) * offsets**2).sum()
    # A kernel cut at three deviations and sampled at pixels has nearly that variance.
    assert variance == pytest.approx((0.5 * severity) ** 2, rel=0.04)


def test_blur_equals_scipy():
    from scipy import ndimage

    theirs = ndimage.gaussian_filter(
        IMAGES[:, :, :, 0], sigma=(0, 1.5, 1.5), mode="nearest", radius=(0, 5, 5)
    )
    ours = corrupt_images(IMAGES, "blur", severity=3)[..., 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    other = ndimage.gaussian_filter(IMAGES[:, :, :, 0], sigma=(0, 1.5, 1.5), mode="reflect")
    assert np.abs(ours - other).max() > 1e-3  # the twin: the border matters


def test_shift_moves_every_image_by_the_stated_pixels():
    seen = set()
    for before, after in zip(SQUARE, corrupt_images(SQUARE, "shift", severity=2), strict=True):
        assert after.sum() == before.sum()
        step = tuple((np.argwhere(after)[0] - np.argwhere(before)[0])[:2].tolist())
        assert max(map(abs, step)) == 2
        assert set(map(abs, step)) <= {0, 2}
        seen.add(step)
    assert len(seen) == 8


def test_shift_out_of_the_frame_loses_pixels():
    full = np.ones((50, 4, 4, 1))
    assert corrupt_images(full, "shift", severity=5).sum() == 0
    assert 0 < corrupt_images(full, "shift", severity=1).sum() < full.sum()


def test_contrast_keeps_the_mean_and_scales_the_rest():
    worse = corrupt_images(SQUARE, "contrast", severity=5)
    assert worse.mean() == pytest.approx(SQUARE.mean(), rel=1e-5)
    assert worse.std() == pytest.approx(0.1 * SQUARE.std(), rel=1e-4)


def test_occlusion_lays_one_grey_square_inside():
    covered = corrupt_images(np.zeros((30, 20, 20, 1)), "occlusion", severity=2)
    for image in covered[..., 0]:
        rows, columns = np.nonzero(image == 0.5)
        assert len(rows) == 36
        assert np.ptp(rows) == np.ptp(columns) == 5
    whole = corrupt_images(np.zeros((3, 4, 7, 1)), "occlusion", severity=5)
    assert (whole == 0.5).all()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: corrupt_images(IMAGES[0], "noise", severity=1), "images"),
        (lambda: corrupt_images(IMAGES * 255, "noise", severity=1), "images"),
        (lambda: corrupt_images(IMAGES, "rain", severity=1), "kind"),
        (lambda: corrupt_images(IMAGES, "noise", severity=6), "severity"),
        (lambda: corrupt_images(IMAGES, "noise", severity=-1), "severity"),
        (lambda: corrupt_images(IMAGES, "noise", severity=1, seed=-1), "seed"),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
