"""PixelDefend: its two decodings by hand and by their definition, likelihoods, models of every kind."""

import time
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from preshield import PixelCNN, PixelDefend
from preshield.evaluation.roc import roc
from preshield.testing import check_preprocessor


def near_previous(x):
    """Logits by which each value is probably 3 levels above the one before it, in the order of memory."""
    before = np.pad(255 * x.reshape(len(x), -1), ((0, 0), (1, 0)))[:, :-1]
    return -np.abs(before.reshape(x.shape)[..., None] + 3 - np.arange(256))


class Table:
    """The same scores for every image; remembers what it was asked."""

    def __init__(self, scores):
        self.scores = scores
        self.asked = []

    def __call__(self, x):
        self.asked.append(x)
        return np.broadcast_to(self.scores, (len(x), *self.scores.shape))


def levels(out):
    return np.rint(255 * np.asarray(out)).astype(int)


def definition(x, scores, eps):
    """The constrained argmax, as ART writes it: image by image, value by value, candidate by candidate."""
    out = np.empty(x.shape, dtype=int)
    for at, level in np.ndenumerate(x):
        best, most = -1, -np.inf
        for candidate in range(max(level - eps, 0), min(level + eps, 255) + 1):
            if scores[at][candidate] > most:
                best, most = candidate, scores[at][candidate]
        out[at] = best
    return out


# Decoding


@pytest.mark.parametrize(
    ("decoding", "expected"),
    # Reach 16 of 40, 60, 80, wanted is 3 above what stands to the left: 0 first.
    [("sequential", [24, 44, 64]), ("one-pass", [24, 44, 64])],
)
def test_values_too_far_from_what_is_probable_stop_at_the_reach(decoding, expected):
    x = np.array([40, 60, 80]).reshape(1, 1, 3, 1) / 255
    out = PixelDefend(pixel_cnn=near_previous, decoding=decoding).transform(x)
    assert_array_equal(levels(out).ravel(), expected)


@pytest.mark.parametrize(
    ("decoding", "expected"), [("sequential", [3, 6, 14, 17]), ("one-pass", [3, 13, 23, 33])]
)
def test_only_sequential_decoding_follows_what_was_decoded(decoding, expected):
    # Sequential: 3 is in reach of 10; 6 of 20; 9 is not in reach of 30, 14 is; 17 is not in reach of 40, ...
    x = np.array([10, 20, 30, 33]).reshape(1, 2, 2, 1) / 255
    out = PixelDefend(pixel_cnn=near_previous, decoding=decoding).transform(x)
    assert out.dtype == np.float32
    assert_array_equal(levels(out).ravel(), expected)


def test_the_order_is_row_by_row_pixel_by_pixel_channel_by_channel():
    x = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 2))
    expected = np.empty((2, 12), dtype=int)
    for n, image in enumerate(x.reshape(2, 12)):
        previous = 0
        for d, level in enumerate(image):
            candidates = range(max(level - 40, 0), min(level + 40, 255) + 1)
            previous = expected[n, d] = min(candidates, key=lambda v: abs(v - previous - 3))
    out = PixelDefend(eps=40, pixel_cnn=near_previous).transform(x / 255)
    assert_array_equal(levels(out).reshape(2, 12), expected)


def channels_last_model(x):
    return near_previous(np.moveaxis(x, 1, -1))


def channels_first_model(x):
    return np.moveaxis(channels_last_model(x), -2, 1)


@pytest.mark.parametrize("decoding", ["sequential", "one-pass"])
@pytest.mark.parametrize(
    "model",
    [
        channels_last_model,
        channels_first_model,
        pytest.param(lambda x: channels_first_model(x).reshape(len(x), -1), id="flat"),
        pytest.param(lambda x: channels_first_model(x).reshape(len(x), -1, 256), id="values"),
    ],
)
def test_channels_first_and_all_shapes_of_outputs(decoding, model):
    x = np.random.default_rng(0).random((3, 4, 5, 2))
    expected = PixelDefend(pixel_cnn=near_previous, decoding=decoding).transform(x)
    flipped = PixelDefend(pixel_cnn=model, decoding=decoding, channels_first=True, batch_size=2)
    out = flipped.transform(np.moveaxis(x, -1, 1))
    assert_array_equal(np.moveaxis(out, 1, -1), expected)
    assert_allclose(
        flipped.log_likelihood(np.moveaxis(x, -1, 1)),
        PixelDefend(pixel_cnn=near_previous).log_likelihood(x),
    )


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(
    ("decoding", "expected"), [("sequential", [3, 6, 14, 17]), ("one-pass", [3, 13, 23, 33])]
)
def test_feature_vectors(decoding, expected, channels_first):
    x = np.array([[10, 20, 30, 33], [10, 20, 30, 33]]) / 255
    for model in (near_previous, lambda x: near_previous(x).reshape(len(x), -1)):
        defence = PixelDefend(pixel_cnn=model, decoding=decoding, channels_first=channels_first)
        out = defence.transform(x)
        assert out.dtype == np.float32
        assert_array_equal(levels(out), [expected, expected])
    as_images = PixelDefend(pixel_cnn=near_previous).log_likelihood(x.reshape(2, 1, 4, 1))
    assert_array_equal(defence.log_likelihood(x), as_images)


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (np.zeros(4), r"\(4,\); pass x\[None\] for one vector\."),
        (np.zeros((14, 15, 3)), r"\(14, 15, 3\); pass x\[None\] for one image\."),
        (np.zeros((4, 28, 28)), r"\(4, 28, 28\); pass x\[\.\.\., None\] for 4 grey images"),
        (np.zeros((2, 3, 4, 5, 3)), r"\(2, 3, 4, 5, 3\)\."),
    ],
    ids=str,
)
def test_neither_images_nor_feature_vectors(x, hint):
    defence = PixelDefend(pixel_cnn=near_previous)
    rule = r"images \(NHWC\) or of feature vectors \(N, D\), got shape "
    for call in (defence.transform, defence.log_likelihood, defence.fit):
        with pytest.raises(ValueError, match=rule + hint):
            call(x)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    eps=st.integers(0, 255),
    distinct=st.sampled_from([2, 10, 10**6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_pass_is_its_definition(shape, eps, distinct, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape)
    scores = rng.integers(0, distinct, (*shape, 256)).astype(np.float32) / distinct  # few: ties
    defence = PixelDefend(eps=eps, pixel_cnn=lambda _: scores, decoding="one-pass")
    out = defence.transform(x / 255)
    assert_array_equal(levels(out), definition(x, scores, eps))
    assert_array_equal(out, (levels(out) / 255).astype(np.float32))


def test_reach():
    table = Table(np.linspace(0, 1, 256).reshape(1, 1, 1, 256))  # bright is probable
    x = np.array([0, 100, 255]).reshape(3, 1, 1, 1) / 255
    for eps, expected in ((0, [0, 100, 255]), (16, [16, 116, 255]), (255, [255, 255, 255])):
        assert_array_equal(levels(PixelDefend(eps=eps, pixel_cnn=table).transform(x)).ravel(), expected)


@pytest.mark.parametrize(
    ("clip_values", "x", "expected"),
    [
        ((0, 1), [0.4 / 255, 0.6 / 255, 1.2, -0.2], [0, 1 / 255, 1, 0]),  # rounded, saturated
        ((0, 255), [0.4, 99.6, 300, -4], [0, 100, 255, 0]),
        ((-1, 1), [-1, 1 / 255, 2, -2], [-1, 1 / 255, 1, -1]),
        ((np.array([-1.0]), np.array([1.0])), [-1, 1 / 255, 2, -2], [-1, 1 / 255, 1, -1]),
    ],
)
def test_the_grid_lies_between_the_clip_values(clip_values, x, expected):
    table = Table(np.zeros((1, 4, 1, 256)))
    out = PixelDefend(clip_values, 0, table).transform(np.reshape(x, (1, 1, 4, 1)))
    assert_allclose(out.ravel(), expected, rtol=1e-6, atol=1e-7)


def test_clip_values_for_each_channel():
    table = Table(np.arange(256.0) * np.ones((1, 2, 2, 1)))
    x = np.array([[[[0, 10], [1, 30]]]])
    out = PixelDefend(((0, 10), (1, 30)), 51, table).transform(x)
    assert_allclose(out, [[[[0.2, 14], [1, 30]]]], rtol=1e-6)
    with pytest.raises(
        ValueError, match="`clip_values` must be a number or hold one entry for each of the 2"
    ):
        PixelDefend(((0, 0, 0), (10, 20, 30)), pixel_cnn=table).transform(x)


def test_what_the_model_sees():
    table = Table(np.zeros((1, 2, 1, 256)))
    x = np.array([[10.3, 300], [0, 255], [7, 8]]).reshape(3, 1, 2, 1)
    PixelDefend((0, 255), 0, table, 2, decoding="one-pass").transform(x)
    assert [len(batch) for batch in table.asked] == [2, 1]
    assert table.asked[0].dtype == np.float32
    assert_allclose(table.asked[0][0].ravel(), [10.3 / 255, 1], rtol=1e-6)  # as it is, as in ART
    table.asked.clear()
    PixelDefend((0, 255), 0, table).transform(x)
    assert len(table.asked) == 2
    assert_allclose(table.asked[0][0].ravel(), [10 / 255, 1], rtol=1e-6)  # 8 bits


# Likelihoods and p-values


@pytest.mark.parametrize("logits", [False, True])
def test_log_likelihood_by_hand(logits):
    chances = np.zeros((1, 2, 1, 256))
    chances[0, 0, 0, [10, 20]] = 0.75, 0.25
    chances[0, 1] = 1 / 256
    with np.errstate(divide="ignore"):
        table = Table(np.log(chances) + 5 if logits else chances)
    x = np.array([[10, 0], [20, 77], [20.4, 255]]).reshape(3, 1, 2, 1)
    found = PixelDefend((0, 255), pixel_cnn=table, batch_size=2).log_likelihood(x)
    assert_allclose(found, [(np.log2(0.75) - 8) / 2, -5, -5], rtol=1e-6)


def test_impossible_values_have_a_finite_likelihood():
    chances = np.eye(256)[[[[3]]]]
    found = PixelDefend((0, 255), pixel_cnn=Table(chances)).log_likelihood(
        np.array([3, 4]).reshape(2, 1, 1, 1)
    )
    assert_allclose(found, [0, -126])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_a_likelihood_are_refused(value):
    """They would have a p-value of 1, the least suspicious one."""

    def model(x):
        scores = np.zeros((*x.shape, 256), np.float32)
        scores[x.mean(axis=(1, 2, 3)) > 0.5, 0, :, :, 3] = value
        return scores

    x = np.array([0.1, 0.9]).reshape(2, 1, 1, 1) * np.ones((1, 4, 3, 2))
    defence = PixelDefend(pixel_cnn=model).fit(x[:1])
    assert_allclose(defence.p_values(x[:1]), 1)
    for call in (defence.log_likelihood, defence.p_values, defence.fit):
        with pytest.raises(ValueError, match="scores that are numbers, got NaN or infinity for 6 values"):
            call(x)


def test_fit_without_an_image():
    defence = PixelDefend(pixel_cnn=near_previous)
    for shape in ((0, 4, 4, 1), (2, 0, 4, 1)):
        with pytest.raises(ValueError, match=r"`x` must hold at least one image, got shape \("):
            defence.fit(np.zeros(shape))


def test_p_values_are_ranks_among_the_images_of_fit():
    table = Table(np.log(np.linspace(1, 256, 256)).reshape(1, 1, 1, 256))  # bright is probable
    images = np.array([10, 20, 20, 30]).reshape(4, 1, 1, 1)
    defence = PixelDefend((0, 255), pixel_cnn=table)
    with pytest.raises(
        ValueError, match=r"p-values need training images to compare with: call fit\(x\) first"
    ):
        defence.p_values(images)
    assert defence.is_fitted
    defence.fit(images)
    found = defence.p_values(np.array([5, 10, 20, 25, 30, 200]).reshape(6, 1, 1, 1))
    assert_allclose(found, [1 / 5, 2 / 5, 4 / 5, 4 / 5, 1, 1])
    defence.set_params(pixel_cnn=Table(table.scores))
    with pytest.raises(ValueError, match="call fit"):
        defence.p_values(images)


# Models of every kind


def test_keras_models():
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    model = keras.Sequential([keras.Input((3, 4, 2)), keras.layers.Flatten(), keras.layers.Dense(24 * 256)])
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 2))
    scores = np.asarray(model((x / 255).astype(np.float32))).reshape(3, 3, 4, 2, 256)
    out = PixelDefend(pixel_cnn=model, decoding="one-pass").transform(x / 255)
    assert_array_equal(levels(out), definition(x, scores, 16))
    with pytest.raises(Exception, match=r"Raised by `pixel_cnn` for 1 images of shape \(4, 4, 2\)"):
        PixelDefend(pixel_cnn=model, decoding="one-pass").transform(np.zeros((1, 4, 4, 2)))


def test_torch_modules():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(24, 24 * 256), torch.nn.Softmax(-1)
    )
    x = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 4))
    flags = [module.training for module in model.modules()]
    out = PixelDefend(pixel_cnn=model, decoding="one-pass", channels_first=True).transform(x / 255)
    assert [module.training for module in model.modules()] == flags
    scores = (
        model.eval()(torch.tensor((x / 255).astype(np.float32))).detach().numpy().reshape(3, 2, 3, 4, 256)
    )
    assert_array_equal(levels(out), definition(x, scores, 16))
    assert_allclose(
        PixelDefend(pixel_cnn=lambda x: torch.zeros((*x.shape, 256))).log_likelihood(np.zeros((2, 3, 4, 1))),
        -8,
    )


def test_a_torch_module_gets_its_flags_back_from_two_threads():
    torch = pytest.importorskip("torch")
    inside = Event()

    class Slow(torch.nn.Module):
        def forward(self, x):
            inside.set()
            time.sleep(0.05)
            return torch.zeros((*x.shape, 256))

    defence = PixelDefend(pixel_cnn=Slow().train(), decoding="one-pass")
    x = np.zeros((1, 4, 4, 1))
    thread = Thread(target=defence.transform, args=(x,))
    thread.start()
    assert inside.wait(60)
    defence.transform(x)
    thread.join()
    assert defence.pixel_cnn.training


@pytest.mark.parametrize(
    "dtype", ["float16", ">f2", ">f4", ">f8", "longdouble", "bool", "uint8", ">i4", "int64"]
)
def test_scores_of_any_real_dtype(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 3, 4, 1))
    scores = rng.integers(0, 100, (*x.shape, 256)).astype(dtype)
    defence = PixelDefend(pixel_cnn=lambda _: scores, decoding="one-pass")
    assert_array_equal(levels(defence.transform(x / 255)), definition(x, scores, 16))
    assert np.isfinite(defence.log_likelihood(x / 255)).all()


@pytest.mark.parametrize("dtype", ["complex64", "object", "M8[s]", "U3"])
def test_scores_that_are_no_real_numbers_are_refused(dtype):
    defence = PixelDefend(pixel_cnn=Table(np.zeros((3, 4, 1, 256)).astype(dtype)), decoding="one-pass")
    for call in (defence.transform, defence.log_likelihood):
        with pytest.raises(TypeError, match="`pixel_cnn` must give scores that are real numbers, got dtype"):
            call(np.zeros((2, 3, 4, 1)))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_models_of_other_precisions(dtype):
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 2))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 24 * 256)).to(getattr(torch, dtype))
    dense = keras.layers.Dense(24 * 256, dtype=dtype)
    model = keras.Sequential([keras.Input((3, 4, 2)), keras.layers.Flatten(), dense])
    dense.set_weights(
        [module[1].weight.detach().T.double().numpy(), module[1].bias.detach().double().numpy()]
    )
    images = torch.tensor((x / 255).astype(np.float32)).to(getattr(torch, dtype))
    scores = module(images).detach().double().numpy().reshape(*x.shape, 256)
    out = PixelDefend(pixel_cnn=module, decoding="one-pass").transform(x / 255)
    assert_array_equal(levels(out), definition(x, scores, 16))
    defences = [PixelDefend(pixel_cnn=network, decoding="one-pass") for network in (module, model)]
    record = PixelDefend(pixel_cnn=lambda x: {"logits": module(torch.from_numpy(x).to(images.dtype))})
    record.set_params(decoding="one-pass")
    assert_array_equal(levels(record.transform(x / 255)), levels(out))
    found = [defence.log_likelihood(x / 255) for defence in defences]
    assert_allclose(found[1], found[0], rtol=1e-2)
    assert levels(defences[1].transform(x / 255)).shape == x.shape


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            np.zeros((2, 3, 1, 255)),
            r"shape \(2, 2, 3, 1, 256\) or \(2, 1536\), for images of .*, got \(2, 2, 3, 1, 255\)",
        ),
        (
            np.zeros(6 * 255),
            r"shape \(2, 2, 3, 1, 256\) or \(2, 1536\), for images of shape .*, got \(2, 1530\)",
        ),
        (np.zeros((256, 1, 2, 3)), r"256 scores for each value, .*, got \(2, 256, 1, 2, 3\)"),
        (np.full((2, 3, 1, 256), np.nan), "must give scores that are numbers, got NaN for 12 values"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(scores, message):
    defence = PixelDefend(pixel_cnn=Table(scores), decoding="one-pass")
    with pytest.raises(ValueError, match=message):
        defence.transform(np.zeros((2, 2, 3, 1)) + 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [0, 3, 128, 250, 255])
def test_nan_counts_within_reach_only(level, dtype):
    scores = np.random.default_rng(0).random((2, 40, 1, 256)).astype(dtype)
    x = np.full((1, 2, 40, 1), level / 255)
    defence = PixelDefend(eps=20, pixel_cnn=Table(scores), decoding="one-pass")
    beyond = [k for k in (level - 21, level + 21) if 0 <= k <= 255]
    scores[..., beyond] = np.nan
    defence.transform(x)
    low, high = max(level - 20, 0), min(level + 20, 255)
    places = np.linspace(low, high, 7).astype(int)  # both ends, and on either side of the maximum
    scores[1, np.arange(7), 0, places] = np.nan
    with pytest.raises(ValueError, match=r"must give scores that are numbers, got NaN for 7 values"):
        defence.transform(x)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"eps": -1}, ValueError, "`eps` must be between 0 and 255, got -1"),
        ({"eps": 256}, ValueError, "`eps` must be between 0 and 255, got 256"),
        ({"eps": 1.5}, TypeError, "`eps` must be an integer, got 1.5"),
        ({"clip_values": (1, 0)}, ValueError, "`clip_values` must have minimum < maximum"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        (
            {"decoding": "greedy"},
            ValueError,
            "`decoding` must be one of 'sequential', 'one-pass', got 'greedy'",
        ),
        (
            {"pixel_cnn": 3},
            TypeError,
            "`pixel_cnn` must be None, a PixelCNN, a Keras model, .* got 3 of type int",
        ),
        ({"verbose": 1}, TypeError, "`verbose` must be True or False, got 1"),
        ({"channels_first": 1}, TypeError, "`channels_first` must be True or False, got 1"),
    ],
)
def test_parameters_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        PixelDefend(**parameters)


def test_without_a_trained_model():
    x = np.zeros((1, 4, 4, 1))
    for defence in (PixelDefend(), PixelDefend(pixel_cnn=PixelCNN())):
        assert not defence.is_fitted
        for call in (defence.transform, defence.log_likelihood, defence.p_values):
            with pytest.raises(
                ValueError, match=r"no trained model yet: call fit\(x\) with clean training images"
            ):
                call(x)


# With the default model


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    return (datasets.load_digits().images[..., None] / 16).astype(np.float32)


@pytest.fixture(scope="module")
def trained(digits):
    """On another range, channels first, of another size than the default."""
    pytest.importorskip("tensorflow")
    defence = PixelDefend((-1, 1), 60, PixelCNN(8, 2), channels_first=True)
    return defence.fit(np.moveaxis(2 * digits[:600] - 1, -1, 1), epochs=3)


def test_fit_trains_a_copy(trained, digits):
    sklearn = pytest.importorskip("sklearn.base")
    assert trained.is_fitted
    assert not trained.pixel_cnn.is_fitted
    assert trained.pixel_cnn_.is_fitted
    assert trained.pixel_cnn_.filters == 8
    x = np.moveaxis(2 * digits[600:610] - 1, -1, 1)
    expected = trained.pixel_cnn_.log_likelihood(digits[600:610])
    assert_allclose(trained.log_likelihood(x), expected)
    assert_array_equal(
        trained.transform(x), 2 * np.moveaxis(trained.pixel_cnn_.decode(digits[600:610], 60), -1, 1) - 1
    )
    assert not sklearn.clone(trained).is_fitted


def test_digits_are_purified_and_noise_is_detected(trained, digits):
    clean = np.moveaxis(2 * digits[600:800] - 1, -1, 1)
    noise = np.random.default_rng(0).choice([-0.4, 0.4], clean.shape)
    attacked = np.clip(clean + noise, -1, 1)
    purified = trained.transform(attacked)
    assert np.abs(purified - clean).mean() < 0.8 * np.abs(attacked - clean).mean()
    assert trained.log_likelihood(purified).mean() > trained.log_likelihood(attacked).mean() + 1
    p = trained.p_values(clean)
    assert 0.4 < p.mean() < 0.6
    assert roc(p, trained.p_values(attacked)).auc > 0.95


def test_contract_of_a_trained_model(trained, digits):
    defence = PixelDefend(pixel_cnn=trained.pixel_cnn_, decoding="one-pass")
    check_preprocessor(defence, digits[:2])


def test_the_default_model(digits):
    pytest.importorskip("tensorflow")
    defence = PixelDefend().fit(digits[:16], epochs=1)
    assert repr(defence.pixel_cnn_) == "PixelCNN(filters=32, blocks=4, kernel_size=5, seed=0)"
    assert np.abs(defence.transform(digits[:4]) - digits[:4]).max() <= 16.5 / 255 + 1e-6
    with pytest.raises(ValueError, match=r"images of the shape \(8, 8, 1\) that the .* on, got \(4, 4, 1\)"):
        defence.transform(digits[:1, :4, :4])
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        defence.fit(digits[:4], steps=3)


def test_progress(digits, capsys, trained):
    table = Table(np.zeros((8, 8, 1, 256)))
    for model in (table, trained.pixel_cnn_):
        PixelDefend(pixel_cnn=model).transform(digits[:2])
        assert capsys.readouterr().err == ""
        PixelDefend(pixel_cnn=model, verbose=True).transform(digits[:2])
        assert "PixelDefend" in capsys.readouterr().err
