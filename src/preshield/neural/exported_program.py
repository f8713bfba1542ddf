"""Files of `torch.export.save` (.pt2), read without torch's loader.

`torch.export.load` unpickles the sample inputs, by an unrestricted unpickler if need be, evaluates symbolic
expressions as Python, and takes any attribute of `torch` for an operator, such as
`torch.serialization.os.system`: a file may run any code. What it needs to compute is JSON and raw numbers.
These alone are read here.
"""

import json
import math
import operator
import re
import zipfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .._core.errors import ArgumentError
from .._core.limits import opened_archive
from .._core.remedies import how_to_resize

__all__ = ["ExportedModule", "load_exported"]

SCHEMA = 8  # major version of the schema, that of torch 2.9 and later
OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision)\.(\w+)\.(\w+)")  # namespaces that only compute
TO_FILES = {"from_file", "save"}  # but for these
# Arithmetic on sizes
PYTHON = {
    f"{space}.{name}": getattr(module, name)
    for space, module, names in (
        (
            "_operator",
            operator,
            "add sub mul floordiv truediv mod neg eq ne lt le gt ge and_ or_ getitem",
        ),
        ("math", math, "ceil floor trunc"),
        ("torch", torch, "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt"),
    )
    for name in names.split()
}
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
STRIDED = 7
WRITES = (
    "it changes its own weights or its input, as in training mode; call `module.eval()` and export it again"
)
DYNAMIC = "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"


@dataclass(frozen=True)
class Name:
    """A value that an earlier step made."""

    text: str


@dataclass(frozen=True)
class Here:
    """The device on which the samples lie, whatever the device of the export was."""


@dataclass(frozen=True)
class Step:
    """One call of an operator.

    Attributes
    ----------
    target : str
        Name of the operator.
    args, kwargs
        Arguments, with `Name` and `Here` in the place of what is known when it runs.
    results : tuple
        Names of the results, nested as they are returned; None for those without a name.
    last : tuple of str
        Values that no later step needs.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Any, ...]
    last: tuple[str, ...] = ()


class ExportedModule(torch.nn.Module):  # type: ignore[misc]
    """A graph of torch operators over given tensors, for prediction.

    Parameters
    ----------
    tensors : dict of str to tensor
        Weights and constants, by the name of the value in the graph.
    steps : sequence of Step
        The graph.
    entry : str
        Name of the batch.
    shape : tuple of int or None
        Shape of the batch, None where any length will do.
    returns : object
        `Name` of the result; a tuple or a dict of them.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        steps: tuple[Step, ...],
        entry: str,
        shape: tuple[int | None, ...],
        returns: Any,
    ) -> None:
        super().__init__()
        self._held = torch.nn.Module()  # where no attribute of this class has the name of a weight
        for name, tensor in tensors.items():
            self._held.register_buffer(name, tensor)
        self._steps = _freeing(steps, returns, {entry, *tensors})
        self._entry = entry
        self._returns = returns
        self.sample_shape = shape[1:]

    def forward(self, x: Any) -> Any:
        """Run the graph; its operators alone would compute something for other shapes, too."""
        shape = tuple(x.shape[1:])
        if len(shape) != len(self.sample_shape) or any(
            wanted not in (None, got) for wanted, got in zip(self.sample_shape, shape, strict=True)
        ):
            raise ArgumentError(
                f"The program takes samples of shape {self.sample_shape}, got {shape}"
                f"{how_to_resize(shape, self.sample_shape)}."
            )
        values: dict[str, Any] = {**dict(self._held.named_buffers()), self._entry: x}
        for step in self._steps:
            args, kwargs = _filled(step.args, values, x.device), _filled(step.kwargs, values, x.device)
            returned = _operator(step.target)(*args, **kwargs)
            if step.results:
                _name(step.results, [returned] if len(step.results) == 1 else returned, values)
            for name in step.last:
                values.pop(name, None)
        return _filled(self._returns, values, x.device)


def load_exported(path: Path) -> ExportedModule:
    """Load a module from a file of `torch.export.save`.

    Parameters
    ----------
    path : Path
        The file. Its sample inputs, a pickle, are not read.

    Returns
    -------
    ExportedModule
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If it was made for one size of a batch, in training mode, or for several inputs; or if it holds
        anything but tensors and operators that compute.
    """
    with opened_archive(path) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}

        def read(name: str) -> Any:
            if name not in files:
                raise ArgumentError(f"it lacks {name!r}; save it again with a current torch")
            return json.loads(archive.read(files[name]))

        program = read("models/model.json")
        if program["schema_version"]["major"] != SCHEMA:
            raise ArgumentError("it is in the format of another torch; export it again with a current one")
        stored: dict[str, Any] = {}
        for kind in ("constants", "weights"):
            config = read(f"data/{kind}/model_{kind}_config.json")["config"]
            stored |= _tensors(archive, files, kind, config)
    module = _module(program["graph_module"], stored)
    module.eval()
    return module


def _tensors(
    archive: zipfile.ZipFile, files: Mapping[str, str], kind: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Tensors from raw numbers; those that share them do so here."""
    flat: dict[tuple[str, Any], Any] = {}
    tensors = {}
    for name, payload in config.items():
        meta = payload["tensor_meta"]
        if payload["use_pickle"] or meta is None:
            raise ArgumentError(
                f"it holds {name!r} as a pickle, and unpickling may run any code; export a module whose "
                "weights and constants are plain tensors"
            )
        if meta["layout"] != STRIDED:
            raise ArgumentError(f"its tensor {name!r} is sparse; export a module with dense ones")
        key = payload["path_name"], _dtype(meta["dtype"])
        if key not in flat:
            content = bytearray(archive.read(files[f"data/{kind}/{key[0]}"]))
            flat[key] = torch.frombuffer(content, dtype=key[1]) if content else torch.empty(0, dtype=key[1])
        sizes, strides = ([_known(n) for n in meta[of]] for of in ("sizes", "strides"))
        tensors[name] = torch.as_strided(flat[key], sizes, strides, _known(meta["storage_offset"]))
    return tensors


def _module(found: Mapping[str, Any], stored: Mapping[str, Any]) -> ExportedModule:
    graph, signature = found["graph"], found["signature"]
    tensors, entries = {}, []
    for spec in signature["input_specs"]:
        ((kind, of),) = spec.items()
        if kind in ("parameter", "buffer", "tensor_constant"):
            tensors[of["arg"]["name"]] = stored[of[f"{kind}_name"]]
        elif kind == "user_input" and "as_tensor" in of["arg"]:
            entries.append(of["arg"]["as_tensor"]["name"])
        elif kind != "constant_input":
            raise ArgumentError(
                f"it takes a {kind} that is no tensor; export a module of one batch of samples"
            )
    if len(entries) != 1:
        raise ArgumentError(f"it takes {len(entries)} tensors; export a module of one batch of samples")
    if any("user_output" not in spec for spec in signature["output_specs"]):
        raise ArgumentError(WRITES)
    sizes = graph["tensor_values"][entries[0]]["sizes"]
    shape = tuple(size.get("as_int") for size in sizes)
    if not shape:
        raise ArgumentError("it takes a single number; export a module of one batch of samples")
    if shape[0] is not None:
        raise ArgumentError(
            f"it takes samples of shape {shape[1:]} in batches of {shape[0]} alone; export it for any size, "
            f"with `torch.export.export(module, (example,), {DYNAMIC})` and two samples or more in `example`"
        )
    outputs = [_argument(spec["user_output"]["arg"]) for spec in signature["output_specs"]]
    steps = tuple(_step(node, {*tensors, entries[0]}) for node in graph["nodes"])
    return ExportedModule(tensors, steps, entries[0], shape, _structured(outputs, found["module_call_graph"]))


def _step(node: Mapping[str, Any], constant: set[str]) -> Step:
    """One node; its operator is looked up now, so that a file that names another is refused."""
    args, kwargs = [], {}
    schema = getattr(_operator(node["target"]), "_schema", None)
    written = {argument.name for argument in schema.arguments if argument.is_write} if schema else set()
    values = {given["name"]: _argument(given["arg"]) for given in node["inputs"]}
    if values.get("train") is True:
        raise ArgumentError("its dropout is active; call `module.eval()` and export it again")
    # A normalisation without running statistics is the same in training mode.
    if values.get("training") is True and values.get("running_mean") is not None:
        raise ArgumentError(WRITES)
    if constant & _names([values[name] for name in written if name in values]):
        raise ArgumentError(WRITES)
    for given in node["inputs"]:
        value = values[given["name"]]
        if given["kind"] == 2:
            kwargs[given["name"]] = value
        else:
            args.append(value)
    return Step(node["target"], tuple(args), kwargs, tuple(map(_result, node["outputs"])))


@cache
def _operator(target: str) -> Callable[..., Any]:
    if target in PYTHON:
        found: Callable[..., Any] = PYTHON[target]
        return found
    match = OPERATOR.fullmatch(target)
    if match is None or match[2] in TO_FILES:
        raise ArgumentError(f"it calls {target!r}, which is no operator that only computes on tensors")
    made: Any = getattr(getattr(getattr(torch.ops, match[1]), match[2], None), match[3], None)
    if not isinstance(made, torch._ops.OpOverload):
        raise ArgumentError(
            f"it calls {target!r}, which torch {torch.__version__} lacks; export the module with this torch"
        )
    return made  # type: ignore[no-any-return]


def _argument(argument: Mapping[str, Any]) -> Any:
    """An argument of an operator, in Python; what is not known yet as a `Name`."""
    ((kind, value),) = argument.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Name(value["name"])
        case "as_tensors":
            return [Name(entry["name"]) for entry in value]
        case "as_sym_int" | "as_sym_float" | "as_sym_bool" | "as_optional_tensor":
            return _argument(value)
        case "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors":
            return [_argument(entry) for entry in value]
        case "as_name":
            return Name(value)
        case "as_float":
            return float(value)  # infinity and NaN are words
        case "as_floats":
            return [float(entry) for entry in value]
        case "as_bool" | "as_int" | "as_string" | "as_bools" | "as_ints" | "as_strings" | "as_int_lists":
            return value
        case "as_scalar_type":
            return _dtype(value)
        case "as_memory_format":
            return MEMORY_FORMATS[value]
        case "as_layout" if value == STRIDED:
            return torch.strided
        case "as_device":
            return Here()
        case "as_complex":
            return complex(value["real"], value["imag"])
    raise ArgumentError(f"its graph has an argument of the kind {kind!r}, which is not supported")


def _result(output: Mapping[str, Any]) -> Any:
    """The name of a result, a list of them, or None for what later steps cannot ask for."""
    value = _argument(output)
    if isinstance(value, list):
        return [entry.text if isinstance(entry, Name) else None for entry in value]
    return value.text if isinstance(value, Name) else None


def _structured(outputs: list[Any], calls: list[Mapping[str, Any]]) -> Any:
    """Results as the module returned them, so that its scores can be told from the others."""
    if len(outputs) == 1:
        return outputs[0]
    signature = next((call["signature"] for call in calls if not call["fqn"]), None)
    spec = json.loads(signature["out_spec"])[1] if signature else {}
    if spec.get("type") in ("builtins.tuple", "builtins.list", "builtins.dict"):
        flat = not any(child["children_spec"] for child in spec["children_spec"])
        if flat and spec["type"] == "builtins.dict":
            return dict(zip(json.loads(spec["context"]), outputs, strict=True))
        if flat:
            return tuple(outputs)
    raise ArgumentError(f"it returns {len(outputs)} nested tensors; export a module that returns its scores")


def _dtype(number: int) -> Any:
    if number not in DTYPES:
        raise ArgumentError(f"it has tensors of type {number} of the schema, which is not supported")
    return DTYPES[number]


def _known(size: Mapping[str, Any]) -> int:
    if "as_int" not in size:
        raise ArgumentError("it has weights whose size is not known")
    return int(size["as_int"])


def _freeing(steps: tuple[Step, ...], returns: Any, kept: set[str]) -> tuple[Step, ...]:
    """The steps, each with the values that may go after it: those of all layers at once fill a memory."""
    needed, freeing = {*kept, *_names(returns)}, deque[Step]()
    for step in reversed(steps):
        used = _names((step.args, step.kwargs)) | set(_flat(step.results))
        freeing.appendleft(
            Step(step.target, step.args, step.kwargs, step.results, tuple(sorted(used - needed)))
        )
        needed |= used
    return tuple(freeing)


def _names(value: Any) -> set[str]:
    if isinstance(value, Name):
        return {value.text}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return set().union(*map(_names, parts))


def _flat(results: Any) -> list[str]:
    if isinstance(results, list | tuple):
        return [name for part in results for name in _flat(part)]
    return [] if results is None else [results]


def _filled(value: Any, values: Mapping[str, Any], device: Any) -> Any:
    """A structure with what was computed in the place of names."""
    if isinstance(value, Name):
        return values[value.text]
    if isinstance(value, Here):
        return device
    if isinstance(value, dict):
        return {key: _filled(part, values, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(part, values, device) for part in value)
    return value


def _name(results: Any, returned: Any, values: dict[str, Any]) -> None:
    for name, value in zip(results, returned, strict=True):
        if isinstance(name, list):
            _name(name, value, values)
        elif name is not None:
            values[name] = value
