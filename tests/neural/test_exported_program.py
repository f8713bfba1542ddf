"""Files of torch.export: what they compute, and that nothing in them runs."""

import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from preshield import evaluate
from preshield.neural.model_files import load_model, model_format

torch = pytest.importorskip("torch", minversion="2.9")

X = np.random.default_rng(0).random((3, 2, 6, 6), dtype=np.float32)
SAMPLES, PROGRAM = "data/sample_inputs/model.pt", "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


class Network(torch.nn.Module):
    """Shared weights, arithmetic on sizes, results in a list, a constant, a device, two outputs."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(2, 4, 3, padding="same")
        self.normalisation = torch.nn.BatchNorm2d(4)
        self.dropout = torch.nn.Dropout(0.5)
        self.scores = torch.nn.Linear(72, 72)
        self.tied = self.scores.weight
        self.weights = torch.tensor([1.0, -2.0])

    def forward(self, x):
        x = self.dropout(self.normalisation(self.convolution(x))).relu()
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first * self.weights[0], second * self.weights[1]], dim=1)
        x = x.reshape(x.shape[0] * 2, 72) + torch.arange(72, device=x.device, dtype=torch.float32)
        x = torch.nn.functional.linear(self.scores(x), self.tied).clamp(min=-1e6)
        logits = x.reshape(x.shape[0] // 2, 144)[:, :5] / 100
        return {"auxiliary": logits.mean(dim=1), "logits": logits}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Network()
    network.normalisation.running_mean += 0.25
    return network.eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        program = torch.export.export(
            network, (torch.from_numpy(X),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
        torch.export.save(program, path)
    return path


@pytest.fixture
def changed(path, tmp_path):
    """A function that copies the file with entries replaced, or changed by a function of what JSON holds."""

    def change(name, how):
        target = tmp_path / "changed.pt2"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
            for entry in source.namelist():
                root, _, rest = entry.partition("/")
                content = source.read(entry)
                if rest == name:
                    content = how if isinstance(how, bytes) else _edited(content, how)
                if content is not None:
                    archive.writestr(f"{root}/{rest}", content)
            if name not in {entry.partition("/")[2] for entry in source.namelist()}:
                archive.writestr(f"{root}/{name}", how)
        return target

    return change


def _edited(content, how):
    document = json.loads(content)
    return None if how is None or how(document) is False else json.dumps(document)


def refused(path, message):
    with pytest.raises(ValueError, match=message):
        load_model(path)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_scores_and_gradients_are_those_of_the_module(path, network):
    assert model_format(path) == "exported"
    loaded = load_model(path)
    assert not loaded.training
    assert loaded.sample_shape == (2, 6, 6)
    for count in (1, 3):
        x, same = (torch.from_numpy(X[:count]).requires_grad_() for _ in range(2))
        found, expected = loaded(x), network(same)
        assert list(found) == ["auxiliary", "logits"]
        torch.testing.assert_close(found["logits"], expected["logits"], rtol=0, atol=0)
        torch.testing.assert_close(found["auxiliary"], expected["auxiliary"], rtol=0, atol=0)
        found["logits"].square().sum().backward()
        expected["logits"].square().sum().backward()
        torch.testing.assert_close(x.grad, same.grad, rtol=0, atol=0)
        assert x.grad.abs().sum() > 0


def test_it_moves_and_is_sent_to_workers_as_a_module_is(path):
    loaded = load_model(path)
    again = pickle.loads(pickle.dumps(loaded))
    x = torch.from_numpy(X)
    torch.testing.assert_close(again(x)["logits"], loaded(x)["logits"], rtol=0, atol=0)
    double = again.double()(x.double())["logits"]
    torch.testing.assert_close(double.float(), loaded(x)["logits"], rtol=1e-4, atol=1e-4)


def test_samples_of_another_size(path):
    """Its convolution would take them, and its reshape some."""
    program = load_model(path)
    for shape in ((1, 2, 6, 12), (2, 2, 3, 6), (1, 2, 6)):
        with pytest.raises(ValueError, match=r"takes samples of shape \(2, 6, 6\), got \(2, [36]") as caught:
            program(torch.zeros(shape))
    with pytest.raises(ValueError, match="takes samples of shape") as caught:
        evaluate(program, np.moveaxis(X, 1, -1), [0, 0, 0], threat="linf", eps=0.1, verbose=False)
    assert "pass np.moveaxis(x, -1, 1)" in str(caught.value)


def test_values_are_let_go_once_no_step_needs_them(path):
    steps = load_model(path)._steps
    gone = [name for step in steps for name in step.last]
    assert len(gone) == len(set(gone)) >= len(steps) - 3


# What a file may not do. torch.export.load would do all of it.


def test_sample_inputs_are_never_unpickled(changed, tmp_path):
    for content in (
        pickle.dumps(Payload(tmp_path / "touched"), 2),
        _saved({"a": Payload(tmp_path / "touched")}),
    ):
        loaded = load_model(changed(SAMPLES, content))
        assert loaded(torch.from_numpy(X))["logits"].shape == (3, 5)
    assert not (tmp_path / "touched").exists()


def test_pickled_weights(changed, tmp_path):
    def pickled(config):
        config["config"]["scores.bias"]["use_pickle"] = True

    path = changed(WEIGHTS, pickled)
    refused(
        path, r"it holds 'scores.bias' as a pickle, and unpickling may run any code; export a module whose"
    )
    # What an earlier torch wrote in the place of the raw numbers.
    path = changed("data/weights/model.pt", pickle.dumps(Payload(tmp_path / "touched"), 2))
    load_model(path)
    assert not (tmp_path / "touched").exists()


def _saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.image.read_file.default",
        "torch.ops.aten.relu.default.__globals__",
        "torch.ops.aten.__class__.mro",
        "math.__loader__",
        "_operator.attrgetter",
        "os.system",
    ],
)
def test_operators_that_do_more_than_compute(changed, target):
    def call(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    refused(changed(PROGRAM, call), "it calls '.*', which (is no operator that only|torch .* lacks)")


def test_torch_would_take_any_attribute_of_its_own_for_an_operator():
    """The reason for a reader of our own; if this fails, torch.export.load may have become safe."""
    from torch._export.serde.serialize import GraphModuleDeserializer

    found = GraphModuleDeserializer.deserialize_operator(None, "torch.serialization.os.system")
    assert found is os.system


def test_expressions_and_guards_are_not_evaluated(changed, tmp_path):
    code = f"__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch()"

    def put(program):
        program["guards_code"] = [code]
        for values in program["graph_module"]["graph"]["sym_int_values"].values():
            values["as_expr"]["expr_str"] = code
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    load_model(changed(PROGRAM, put))(torch.from_numpy(X))
    assert not (tmp_path / "touched").exists()


def test_weights_stay_within_what_the_file_holds(changed):
    def longer(config):
        config["config"]["scores.bias"]["tensor_meta"]["sizes"] = [{"as_int": 10**6}]

    refused(changed(WEIGHTS, longer), "out of bounds for storage")


# What cannot be evaluated


def test_one_size_of_a_batch(changed):
    def fixed(program):
        (name,) = (
            spec["user_input"]["arg"]["as_tensor"]["name"]
            for spec in program["graph_module"]["signature"]["input_specs"]
            if "user_input" in spec
        )
        program["graph_module"]["graph"]["tensor_values"][name]["sizes"][0] = {"as_int": 3}

    refused(
        changed(PROGRAM, fixed),
        r"samples of shape \(2, 6, 6\) in batches of 3 alone; export it for any size, with "
        r"`torch.export.export\(module, \(example,\), dynamic_shapes=\(\{0: torch.export.Dim.DYNAMIC\},\)\)`",
    )


def test_training_mode(changed):
    def active(program):
        (node,) = (n for n in program["graph_module"]["graph"]["nodes"] if "dropout" in n["target"])
        node["inputs"][-1]["arg"]["as_bool"] = True

    def updating(program):
        spec = {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "normalisation.running_mean"}}
        program["graph_module"]["signature"]["output_specs"].insert(0, spec)

    def batch_statistics(program):
        (node,) = (n for n in program["graph_module"]["graph"]["nodes"] if "batch_norm" in n["target"])
        (given,) = (given for given in node["inputs"] if given["name"] == "training")
        given["arg"]["as_bool"] = True

    def counting(name):
        def add(program):
            argument = {"name": "self", "arg": {"as_tensor": {"name": name}}, "kind": 1}
            one = {"name": "other", "arg": {"as_int": 1}, "kind": 1}
            node = {"target": "torch.ops.aten.add_.Scalar", "inputs": [argument, one], "outputs": []}
            program["graph_module"]["graph"]["nodes"].insert(0, node)

        return add

    refused(changed(PROGRAM, active), r"its dropout is active; call `module.eval\(\)` and export it again")
    for way in (
        updating,
        batch_statistics,
        counting("b_normalisation_num_batches_tracked"),
        counting("p_scores_bias"),
        counting("x"),
    ):
        refused(
            changed(PROGRAM, way), r"changes its own weights or its input, .*; call `module.eval\(\)` and"
        )


def test_other_graphs(changed):
    def nested(program):
        program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_graph": {}}

    def two(program):
        specs = program["graph_module"]["signature"]["input_specs"]
        specs.append(next(spec for spec in specs if "user_input" in spec))

    def old(program):
        program["schema_version"]["major"] = 7

    refused(changed(PROGRAM, nested), "an argument of the kind 'as_graph', which is not")
    refused(changed(PROGRAM, two), "it takes 2 tensors; export a module of one batch of samples")
    refused(changed(PROGRAM, old), "in the format of another torch; export it again")


def test_other_files(changed, tmp_path, path):
    (tmp_path / "cut.pt2").write_bytes(path.read_bytes()[:1000])
    refused(tmp_path / "cut.pt2", "it is truncated, or not in the format of torch.export.save")
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    refused(tmp_path / "old.pt2", "its weights are a pickle, as torch before 2.9 wrote them; save it with")
    refused(changed("data/aotinductor/model/x.so", b""), "it holds compiled code; save the program itself")
    refused(changed(WEIGHTS, None), "it lacks 'data/weights/model_weights_config.json'; save it again")
    refused(changed(PROGRAM, None), "it is not in the format of torch.export.save")
