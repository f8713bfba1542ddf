"""Resizing: interpolation, its transpose, integers, and the targets of detectors."""

import numpy as np
import pytest

from preshield import Chain, ImageResize, ImageSquarePad

torch = pytest.importorskip("torch")

METHODS = ["nearest", "bilinear", "bicubic", "area", "lanczos4", "nearest-exact"]
SIZES = [
    ((6, 5), (9, 13)),
    ((9, 13), (4, 5)),
    ((8, 6), (8, 6)),
    ((7, 4), (3, 9)),
    ((1, 2), (3, 1)),
    ((2, 3), (40, 1)),
]


def line(values, width, interpolation):
    """A row of pixels, resized."""
    x = np.array(values, dtype=float)[None, None, :, None]
    return ImageResize(1, width, interpolation=interpolation).transform(x).ravel()


def by_torch(x, size, mode):
    out = torch.nn.functional.interpolate(torch.tensor(np.moveaxis(x, -1, 1)), size=size, mode=mode)
    return np.moveaxis(out.numpy(), 1, -1)


# Known answers


@pytest.mark.parametrize(
    ("interpolation", "values", "expected"),
    [
        ("nearest", [1, 2, 3], [1, 2]),  # old pixels 0 and 1.5, rounded down
        ("nearest-exact", [1, 2, 3, 4], [2, 4]),
        ("bilinear", [0, 4], [0, 1, 3, 4]),  # middles at -0.25, 0.25, 0.75 and 1.25
        ("bilinear", [0, 2, 4, 9], [1, 6.5]),  # nothing is blurred: middles at 0.5 and 2.5
        ("area", [3, 6, 9], [4, 8]),  # (3 + 6 / 2) / 1.5 and (6 / 2 + 9) / 1.5
        ("area", [1, 2], [1, 1.5, 2]),  # the middle third shares one half of each
        ("area", [1, 3, 5, 7], [2, 6]),
    ],
)
def test_by_hand(interpolation, values, expected):
    np.testing.assert_allclose(line(values, len(expected), interpolation), expected)


@pytest.mark.parametrize("interpolation", METHODS)
def test_a_flat_image_stays_flat_and_the_same_size_the_same(interpolation):
    x = np.random.default_rng(0).random((2, 7, 5, 3))
    np.testing.assert_allclose(ImageResize(7, 5, interpolation=interpolation).transform(x), x, atol=1e-12)
    flat = ImageResize(11, 3, interpolation=interpolation).transform(np.full((1, 4, 6, 2), 0.3))
    np.testing.assert_allclose(flat, 0.3)


# Oracles


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "nearest-exact"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_torch_gives_the_same(old, new, interpolation, channels_first):
    x = np.random.default_rng(0).random((2, *old, 3))
    given = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first else x
    out = ImageResize(*new, channels_first, interpolation=interpolation).transform(given)
    out = np.moveaxis(out, 1, -1) if channels_first else out
    np.testing.assert_allclose(out, by_torch(x, new, interpolation), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [((6, 9), (3, 3)), ((8, 4), (2, 4)), ((3, 2), (6, 8))])
def test_area_is_torchs_for_whole_factors(old, new):
    x = np.random.default_rng(0).random((2, *old, 3))
    out = ImageResize(*new, interpolation="area").transform(x)
    np.testing.assert_allclose(out, by_torch(x, new, "area"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "nearest-exact"])
def test_the_gradient_is_torchs(old, new, interpolation):
    x = torch.rand((2, 3, *old), dtype=torch.float64, requires_grad=True)
    grad = torch.rand((2, 3, *new), dtype=torch.float64)
    torch.nn.functional.interpolate(x, size=new, mode=interpolation).backward(grad)
    ours = ImageResize(*new, True, interpolation=interpolation).estimate_gradient(x.detach(), grad)
    np.testing.assert_allclose(ours, x.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("interpolation", METHODS)
def test_the_gradient_is_the_transpose(old, new, interpolation):
    rng = np.random.default_rng(0)
    x, grad = rng.random((2, *old, 3)), rng.random((2, *new, 3))
    resize = ImageResize(*new, interpolation=interpolation)
    pulled = resize.estimate_gradient(x, grad)
    np.testing.assert_allclose((pulled * x).sum(), (resize.transform(x) * grad).sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("flag", "name"), list(enumerate(["nearest", "bilinear", "bicubic", "area", "lanczos4"]))
)
def test_flags_of_opencv(flag, name):
    cv2 = pytest.importorskip("cv2")
    assert flag == getattr(
        cv2, {"bilinear": "INTER_LINEAR", "bicubic": "INTER_CUBIC"}.get(name, f"INTER_{name.upper()}")
    )
    for old, new in (((6, 5), (9, 13)), ((9, 13), (4, 5)), ((8, 6), (8, 6))):
        x = np.random.default_rng(0).random((*old, 3))
        expected = cv2.resize(x, new[::-1], interpolation=flag)
        for interpolation in (flag, name, np.int64(flag)):
            out = ImageResize(*new, interpolation=interpolation).transform(x[None])[0]
            np.testing.assert_allclose(out, expected, atol=1e-5)


# Types and ranges


def test_integers_are_rounded_and_saturate():
    x = np.array([0, 255, 255, 0], np.uint8)[None, None, :, None]
    exact = ImageResize(1, 16, interpolation="bicubic").transform(x.astype(float))
    assert exact.max() > 256
    out = ImageResize(1, 16, interpolation="bicubic").transform(x)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, np.clip(np.rint(exact), 0, 255))
    large = np.full((1, 2, 2, 1), 2**31 - 1, np.int32)
    assert (ImageResize(3, 3).transform(large) == 2**31 - 1).all()
    assert (ImageResize(3, 3).transform(np.full((1, 2, 2, 1), 2**63 - 1)) > 2**62).all()
    assert ImageResize(4, 4).transform(np.eye(2, dtype=bool)[None, ..., None]).dtype == bool


def test_clip_values_limit_the_result_and_its_gradient():
    x = np.array([0.0, 1.0, 1.0, 0.0])[None, None, :, None]
    resize = ImageResize(1, 16, interpolation="bicubic", clip_values=(0, 1))
    free = ImageResize(1, 16, interpolation="bicubic")
    np.testing.assert_array_equal(resize.transform(x), np.clip(free.transform(x), 0, 1))
    inside = (free.transform(x) >= 0) & (free.transform(x) <= 1)
    assert 0 < inside.sum() < 16
    grad = np.random.default_rng(0).random((1, 1, 16, 1))
    np.testing.assert_allclose(resize.estimate_gradient(x, grad), free.estimate_gradient(x, grad * inside))


def test_images_of_different_sizes_become_one_batch():
    images = [np.random.default_rng(0).random((h, w, 3)) for h, w in ((4, 9), (8, 5), (6, 6))]
    resize = ImageResize(6, 5)
    out = resize.transform(images)
    assert out.dtype == np.float64
    assert out.shape == (3, 6, 5, 3)
    for image, resized in zip(images, out, strict=True):
        np.testing.assert_array_equal(resize.transform(image[None])[0], resized)
    pulled = resize.estimate_gradient(images, np.ones(out.shape))
    assert [g.shape for g in pulled] == [image.shape for image in images]
    with pytest.raises(ValueError, match=r"`x\[1\]` must be an image \(HWC\), got shape \(8, 5\)"):
        resize.transform([images[0], images[1][..., 0]])


def test_images_without_pixels():
    assert ImageResize(3, 2).transform(np.zeros((0, 5, 4, 1))).shape == (0, 3, 2, 1)
    with pytest.raises(
        ValueError, match=r"`x` must have at least one pixel in each image, got shape \(1, 0, 4, 1\)"
    ):
        ImageResize(3, 2).transform(np.zeros((1, 0, 4, 1)))


# Detectors


def target(**entries):
    boxes = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 4.0, 8.0]])
    masks = np.zeros((2, 8, 4), np.uint8)
    masks[0, 2:4, 1:3], masks[1] = 1, 1
    return {"boxes": boxes, "labels": np.array([7, 9]), "masks": masks, **entries}


def test_boxes_and_masks_move_with_the_image():
    x = np.zeros((1, 8, 4, 3), np.float32)
    x[0, 2:4, 1:3] = 1
    y = [target()]
    out, (moved,) = ImageResize(16, 12, False, "object_detection", "nearest")(x, y)
    # 16 / 8 = 2 times as high, 12 / 4 = 3 times as wide
    np.testing.assert_array_equal(moved["boxes"], [[3, 4, 9, 8], [0, 0, 12, 16]])
    expected = np.zeros((16, 12), np.uint8)
    expected[4:8, 3:9] = 1
    np.testing.assert_array_equal(moved["masks"][0], expected)
    assert moved["masks"].dtype == np.uint8
    assert moved["masks"][1].all()
    np.testing.assert_array_equal(out[0, ..., 0], expected)  # and the image is where they are
    np.testing.assert_array_equal(moved["labels"], [7, 9])
    assert list(moved) == list(y[0])


def test_nothing_of_the_users_is_changed_or_shared():
    y = [target(image_id=3, names=["cat", "dog"]), target()]
    before = [{k: np.array(v) for k, v in t.items()} for t in y]
    _, moved = ImageResize(4, 4, label_type="object_detection")(np.zeros((2, 8, 4, 3)), y)
    for given, kept, new in zip(y, before, moved, strict=True):
        assert given is not new
        for key in kept:
            np.testing.assert_array_equal(given[key], kept[key])
            if isinstance(given[key], np.ndarray):
                assert not np.shares_memory(given[key], new[key])
    assert moved[0]["image_id"] == 3
    assert moved[0]["names"] == ["cat", "dog"]
    assert moved[0]["names"] is not y[0]["names"]


@pytest.mark.parametrize("channels_first", [False, True])
def test_each_image_of_another_size_has_its_own_scale(channels_first):
    images = [
        np.zeros((3, 8, 4) if channels_first else (8, 4, 3)),
        np.zeros((3, 4, 2) if channels_first else (4, 2, 3)),
    ]
    boxes = np.array([[1, 1, 2, 2]])
    resize = ImageResize(8, 8, channels_first, label_type="object_detection")
    _, moved = resize(images, [{"boxes": boxes}, {"boxes": boxes}])
    np.testing.assert_array_equal([m["boxes"][0] for m in moved], [[2, 1, 4, 2], [4, 2, 8, 4]])
    assert moved[0]["boxes"].dtype == np.float32  # a scaled integer may be none


def test_tensors_stay_tensors():
    x = torch.zeros((1, 3, 8, 4), requires_grad=True)
    y = [{k: torch.from_numpy(v) for k, v in target().items()}]
    y[0]["weight"] = torch.ones(1, requires_grad=True) * 2
    out, (moved,) = ImageResize(16, 12, True, "object_detection")(x, y)
    assert all(isinstance(value, torch.Tensor) for value in moved.values())
    np.testing.assert_array_equal(moved["boxes"], [[3, 4, 9, 8], [0, 0, 12, 16]])
    assert moved["boxes"].dtype == torch.float64
    assert moved["masks"].shape == (2, 16, 12)
    np.testing.assert_array_equal(y[0]["boxes"], target()["boxes"])
    out.sum().backward()
    np.testing.assert_allclose(x.grad, 6)


def test_tensors_of_tensorflow_and_jax():
    tf, jax = pytest.importorskip("tensorflow"), pytest.importorskip("jax")
    resize = ImageResize(16, 12, label_type="object_detection")
    for kind, convert in ((tf.Tensor, tf.constant), (jax.Array, jax.numpy.asarray)):
        y = [{k: convert(v.astype(np.float32)) for k, v in target().items()}]
        _, (moved,) = resize(convert(np.zeros((1, 8, 4, 3), np.float32)), y)
        assert all(isinstance(value, kind) for value in moved.values())
        np.testing.assert_array_equal(moved["boxes"], [[3, 4, 9, 8], [0, 0, 12, 16]])
    with pytest.raises(ValueError, match=r"must be a tensor inside tf\.function, got a list of dicts; call"):
        tf.function(lambda x: resize(x, [target()])[0], autograph=False)(tf.zeros((1, 8, 4, 3)))
    with pytest.raises(ValueError, match=r"must be a tensor inside jax\.jit, got a list of dicts; call"):
        jax.jit(lambda x: resize(x, [target()])[0])(jax.numpy.zeros((1, 8, 4, 3)))


def test_a_chain_moves_boxes_through_all_stages():
    chain = Chain(
        [ImageSquarePad(label_type="object_detection"), ImageResize(16, 16, label_type="object_detection")]
    )
    y = [target()]
    out, (moved,) = chain(np.zeros((1, 8, 4, 3)), y)
    assert out.shape == (1, 16, 16, 3)
    # two pixels to the right, then twice as large
    np.testing.assert_array_equal(moved["boxes"], [[6, 4, 10, 8], [4, 0, 12, 16]])
    assert moved["masks"].shape == (2, 16, 16)
    assert chain(np.zeros((1, 8, 4, 3)))[1] is None


def test_no_boxes_are_boxes():
    resize = ImageResize(4, 4, label_type="object_detection")
    _, (moved,) = resize(np.zeros((1, 8, 4, 3)), [{"boxes": np.zeros((0, 4)), "masks": None}])
    assert moved["boxes"].shape == (0, 4)
    assert moved["masks"] is None


def test_labels_of_a_classifier_pass():
    y = object()
    assert ImageResize(3, 3)(np.zeros((1, 4, 4, 1)), y)[1] is y
    assert ImageResize(3, 3, label_type=None)(np.zeros((1, 4, 4, 1)), y)[1] is y
    assert ImageResize(3, 3, label_type="object_detection")(np.zeros((1, 4, 4, 1)))[1] is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            np.eye(2),
            r"`y` must be a list with a dict for each image, .* got ndarray in y\[0\]. Pass label_type=",
        ),
        ([{"boxes": np.zeros((1, 4))}, {"labels": 3}], r"got the keys \['labels'\] in y\[1\]"),
        ([{"boxes": np.zeros((1, 4))}], "`y` must have one label for each of the 2 samples"),
        ([{"boxes": np.zeros(4)}] * 2, r"`y\[0\]\['boxes'\]` must have shape \(M, 4\), got \(4,\)"),
        ([{"boxes": np.full((1, 4), np.nan)}] * 2, r"`y\[0\]\['boxes'\]` must be finite"),
        (
            [{"boxes": np.zeros((1, 4)), "masks": np.zeros((1, 4, 8))}] * 2,
            r"`y\[0\]\['masks'\]` must have shape \('M', 8, 4\), as its image, got \(1, 4, 8\)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        ImageResize(4, 4, label_type="object_detection")(np.zeros((2, 8, 4, 3)), y)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"height": 0}, "`height` must be at least 1, got 0"),
        ({"width": 2.5}, "`width` must be an integer, got 2.5"),
        ({"interpolation": "trilinear"}, "`interpolation` must be one of 'nearest', .* got 'trilinear'"),
        ({"interpolation": 7}, r"`interpolation` must be one of .* to 6 \(INTER_NEAREST_EXACT\), got 7"),
        ({"interpolation": True}, "`interpolation` must be one of"),
        (
            {"label_type": "boxes"},
            "`label_type` must be one of 'classification', 'object_detection', got 'boxes'",
        ),
        ({"clip_values": (0,)}, "`clip_values` must be a pair"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ImageResize(**{"height": 3, "width": 3, **kwargs})
