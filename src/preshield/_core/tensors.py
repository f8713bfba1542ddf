"""Which framework a tensor belongs to, and the way through NumPy and back with the gradient.

A framework is recognised through `sys.modules`: whoever holds a tensor has imported it. Eager tensors are
computed at once, and the draw of the forward pass is kept for the backward pass. Traced tensors
(`tf.function`, `jax.jit`, `jax.grad`) call back at run time, and the draw is regenerated from a seed that
is part of the graph.

The backward pass is code in NumPy, which no framework can differentiate again. A second derivative is
therefore refused, unless the gradient was passed on unchanged: then the framework's own tensor is passed on,
and stays connected.
"""

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import check_array_labels, check_given_labels, check_index, check_labels, check_output_shape
from .errors import ArgumentError
from .layout import as_array, as_numbers, object_array
from .random import FROZEN
from .typing import Array, Dtype, Seed, Shape

if TYPE_CHECKING:
    from ..preprocessor import Preprocessor

__all__ = ["call", "framework", "like", "pull_back", "to_numpy"]

UNKNOWN = (128, 129)  # tried for axes of unknown length; so many classes suit nearly every `max_value`
TWICE = (
    "{} has neither second nor forward-mode derivatives: its gradient is computed in NumPy. Leave it out of "
    "the part that needs them, or pass gradient='identity' if it has that parameter."
)
RECOMPUTED = (
    "{} draws at random, and a recomputed forward pass would draw anew: the gradient would be that of "
    "another loss. Defend outside the checkpointed part, or run the forward and the backward pass inside "
    "`with defence.frozen(seed):`."
)
FORWARD = (
    "{} has no forward-mode derivative inside tf.function, where TensorFlow takes that of a custom gradient "
    "for zero. Use tf.GradientTape, or leave the defence out of the compiled function."
)
RECORDED = (
    "{} runs in NumPy, which {} does not record: its result would be a constant of the program. Record the "
    "model alone, and defend its input."
)


def framework(x: Any) -> str:
    """Name of the framework that `x` belongs to: "torch", "tensorflow", "jax" or "numpy"."""
    torch, tensorflow, jax = (sys.modules.get(name) for name in ("torch", "tensorflow", "jax"))
    if torch is not None and isinstance(x, getattr(torch, "Tensor", ())):
        return "torch"
    if jax is not None and isinstance(x, getattr(jax, "Array", ())):
        return "jax"
    if tensorflow is not None and hasattr(tensorflow, "is_tensor") and tensorflow.is_tensor(x):
        return "tensorflow"
    return "numpy"


def to_numpy(x: Any) -> Array:
    """An eager tensor, or anything array-like, as a NumPy array; `bfloat16` becomes `float32`."""
    kind = framework(x)
    if kind == "torch":
        if (layout := str(x.layout)) != "torch.strided" or x.is_meta:
            held, remedy = (
                ("no values", "a tensor of another device") if x.is_meta else (layout, "x.to_dense()")
            )
            raise ArgumentError(f"Tensors must be dense and hold values, got one of {held}; pass {remedy}.")
        x = x.detach().resolve_conj().resolve_neg()
        x = x.float() if "bfloat16" in str(x.dtype) else x
        return np.asarray(x.cpu().numpy())
    array = as_array(x)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def call(defence: "Preprocessor", x: Any, y: Any, index: Any = None) -> tuple[Any, Any]:
    """Apply `defence` to a batch of any framework, and to its labels."""
    kind = framework(x)
    if kind == "numpy" and defence._changes_labels and _traced(framework(y), y):
        if defence.domains == ("labels",):  # the data may be anything, and pass
            return x, call(defence, y, y, index)[1]
        kind, x = framework(y), as_array(x)
    if defence.domains == ("labels",) and not _traced(kind, x, y):
        return _numpy(defence, x, y, index)
    if kind == "numpy" and not _is_bfloat16(x):
        return _numpy(defence, x, y, index)
    if _is_waveform(defence, x):
        out, y = call(defence, x[None], y, index)
        return out[0], y
    _require_labels(defence, y)
    if _is_bfloat16(x):
        out, y = call(defence, _cast(kind, x, "float32"), y, index)
        kept = defence._output_dtype(np.dtype(np.float16)) == np.float16
        return (_cast(kind, out, "bfloat16") if kept else out), y
    return {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}[kind](defence, x, y, index)


def pull_back(defence: "Preprocessor", x: Any, grad: Any, index: Any = None) -> Any:
    """Vector-Jacobian product at an eager batch of any framework."""
    batch, given = to_numpy(x), to_numpy(grad)
    if _is_waveform(defence, batch):
        x, grad = (
            given[None] if framework(given) != "numpy" else array[None]
            for given, array in ((x, batch), (grad, given))
        )
        return pull_back(defence, x, grad, index)[0]
    batch = defence._checked(batch)
    pulled = defence._pull_back(batch, given, _draw(defence, batch, index))
    if pulled.dtype == object:
        pulled = object_array([_own(*pair) for pair in zip(pulled, given, strict=True)])
    else:
        pulled = _own(pulled, given)
        pulled = pulled.astype(object) if given.dtype == object else pulled
    out = like(x if framework(grad) == "numpy" else grad, pulled)
    return _cast(framework(grad), out, "bfloat16") if _is_bfloat16(grad) else out


def _own(pulled: Array, grad: Array) -> Array:
    """A gradient in memory that is not the caller's."""
    shared = not pulled.flags.writeable or np.may_share_memory(pulled, grad)
    return pulled.copy() if shared else pulled


def _draw(defence: "Preprocessor", batch: Array, index: Any) -> Any:
    """The draw of a pass that begins."""
    return defence._begin(batch, _seed(defence, () if index is None else np.shape(batch), index))


def _seed(defence: "Preprocessor", shape: Shape, index: Any) -> Seed:
    """The seed of a pass that begins, and behind it the numbers of the samples if the caller gives them."""
    if index is None:
        return defence._next_seed()
    numbers = _numbers(defence, shape, index)
    if not defence._seed_words:
        return defence._next_seed()
    return np.concatenate([defence._next_seed(addressed=True), numbers])


def _numbers(defence: "Preprocessor", shape: Shape, index: Any) -> Array:
    """The numbers of the samples, if the defence can make use of them."""
    if not shape:  # of labels alone
        return np.zeros(0, dtype=np.uint32)
    numbers = check_index(to_numpy(index), shape[0])
    if defence._seed_words:
        changed = defence._states_shape and defence._output_shape(shape)[0] != shape[0]
        if changed or not defence._takes_index:
            raise ArgumentError(
                f"`index` must be left out for {defence!r}: a sample of it is made of several, or it adds "
                "some, or its own methods draw."
            )
    return numbers


def _seed_of_callback(defence: "Preprocessor", shape: Any, *index: Any) -> Seed:
    """The seed of a pass, asked for by a thread of a framework on behalf of another."""
    with FROZEN.borrowed():
        return _seed(defence, tuple(map(int, shape)), *(index or (None,)))


def _numpy(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    given = x if defence.domains == ("labels",) else as_array(x)
    if _is_waveform(defence, given):
        out, y = _numpy(defence, given[None], y, index)
        return out[0], y
    batch = defence._checked(given, runs=True)
    _require_labels(defence, y)
    draw = _draw(defence, batch, index)
    out = defence._run(batch, draw)
    of_python = isinstance(given, np.ndarray) and given.dtype == object and batch.dtype != object
    if defence.ragged and of_python:
        out = out.astype(object)  # samples of one length, which may differ in the next batch
    return out, _labels(defence, y, batch, draw)


def _is_waveform(defence: "Preprocessor", x: Any) -> bool:
    """Whether `x` is one waveform `(length,)`, as ART's speech recognisers pass it; no batch of audio is."""
    if defence.domains != ("audio",):
        return False
    shape = getattr(x, "shape", ())
    rank = shape.rank if hasattr(shape, "rank") else len(shape)  # TensorFlow's may be unknown
    return rank == 1 and not _is_ragged(x)


def _is_bfloat16(x: Any) -> bool:
    """Whether it is a tensor, or an array as a tensor of TensorFlow's or JAX's becomes one, of this type."""
    dtype = getattr(x, "dtype", "")
    if isinstance(dtype, np.dtype) and dtype.kind != "V":  # to write the name of a type takes microseconds
        return False
    return "bfloat16" in str(dtype)


def _is_ragged(x: Any) -> bool:
    """Whether `x`, which has one axis, is a batch of samples that may differ in length."""
    return isinstance(x, np.ndarray) and x.dtype == object and not (len(x) and np.ndim(x[0]) == 0)


def _require_labels(defence: "Preprocessor", y: Any) -> None:
    if defence.mixes_samples:
        check_given_labels(y, type(defence).__name__)


def _labels(defence: "Preprocessor", y: Any, x: Any, draw: Any) -> Any:
    """Eager labels of any framework after the defence."""
    if not defence._changes_labels:
        return y
    labels = None if y is None else to_numpy(y)
    if labels is not None:
        check_labels(labels, x)
        labels = as_numbers(labels)
    out = defence._labelled(labels, draw)
    return out if out is None or out is y else like(y, out)


def like(x: Any, array: Array) -> Any:
    """The array as a tensor of the framework and on the device of `x`."""
    kind = framework(x)
    if kind == "torch":
        torch = sys.modules["torch"]
        return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(x.device)
    if kind == "tensorflow":
        return sys.modules["tensorflow"].convert_to_tensor(array)
    if kind == "jax":
        return sys.modules["jax"].device_put(array, x.sharding)
    return array


def _cast(kind: str, x: Any, dtype: str) -> Any:
    if kind == "torch":
        return x.to(getattr(sys.modules["torch"], dtype))
    return sys.modules["tensorflow"].cast(x, dtype) if kind == "tensorflow" else x.astype(dtype)


def _traced(kind: str, *tensors: Any) -> bool:
    """Whether values are known only when the graph runs."""
    if kind == "tensorflow":
        return not sys.modules["tensorflow"].executing_eagerly()
    return kind == "jax" and any(isinstance(t, sys.modules["jax"].core.Tracer) for t in tensors)


# What a traced graph calls back: everything is regenerated from the seed


def _begun(defence: "Preprocessor", x: Array, seed: Seed) -> Any:
    """The draw of a pass, in a thread of a framework on behalf of another, which may know the samples."""
    with FROZEN.borrowed():
        return defence._begin(x, seed)


def _forward(defence: "Preprocessor", x: Array, seed: Seed) -> Array:
    if _is_waveform(defence, x):  # in a graph that does not know its rank
        return _forward(defence, x[None], seed)[0]  # type: ignore[no-any-return]
    x = defence._checked(x, runs=True)
    out = defence._run(x, _begun(defence, x, seed))
    check_output_shape(defence, out.shape, defence._output_shape(x.shape))
    return out


def _backward(defence: "Preprocessor", x: Array, seed: Seed, grad: Array) -> Array:
    if _is_waveform(defence, x):
        return _backward(defence, x[None], seed, grad[None])[0]  # type: ignore[no-any-return]
    x = defence._checked(x)
    return defence._pull_back(x, grad, _begun(defence, x, seed)).astype(x.dtype, copy=False)


def _relabel(defence: "Preprocessor", y: Array, x: Array, seed: Seed) -> Array:
    check_labels(y, x)
    return np.asarray(defence._labelled(y, _begun(defence, x, seed)))


def _label_example(defence: "Preprocessor", y: Shape, y_dtype: Any, x: Shape, x_dtype: Any) -> Array:
    """What labels of this kind become, found by trying it on zeros."""
    seed = np.zeros(defence._seed_words, dtype=np.uint32)
    return _relabel(defence, np.zeros(y, y_dtype), np.broadcast_to(np.zeros((), x_dtype), x), seed)


def _is_unchanged(pulled: Array, grad: Array) -> bool:
    """Whether a gradient was passed on, not computed: the same values in the same place."""

    def place(a: Array) -> Any:
        return a.ctypes.data, a.shape, a.strides, a.dtype

    return bool(place(pulled) == place(grad))


def _passed_on(defence: "Preprocessor", x: Array, seed: Seed, grad: Array, back: Array) -> Array:
    """The second backward pass: `back`, if the first one passed its gradient on."""
    x = defence._checked(x)
    if not _is_unchanged(defence._pull_back(x, grad, _begun(defence, x, seed)), grad):
        raise RuntimeError(TWICE.format(defence))
    return back


# torch: eager only; torch.compile breaks its graph here


@cache
def _torch_function() -> Any:
    torch = sys.modules["torch"]

    class Once(torch.autograd.Function):  # type: ignore[misc, name-defined, unused-ignore]
        """A gradient that is not to be differentiated again, whichever way it is reached."""

        @staticmethod
        def forward(ctx: Any, pulled: Any, defence: "Preprocessor", grad: Any, x: Any) -> Any:
            ctx.defence = defence
            return pulled.view_as(pulled)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            raise RuntimeError(TWICE.format(ctx.defence))

    class Defend(torch.autograd.Function):  # type: ignore[misc, name-defined, unused-ignore]
        @staticmethod
        def forward(ctx: Any, x: Any, defence: "Preprocessor", index: Any, passed: list[Any]) -> Any:
            batch = defence._checked(to_numpy(x), runs=True)
            ctx.draw = _draw(defence, batch, index)
            ctx.defence = defence
            ctx.save_for_backward(x)
            passed.append(ctx.draw)
            return like(x, defence._run(batch, ctx.draw))

        @staticmethod
        def backward(ctx: Any, grad: Any) -> tuple[Any, None, None, None]:
            (x,) = ctx.saved_tensors
            given = to_numpy(grad)
            pulled = ctx.defence._pull_back(to_numpy(x), given, ctx.draw)
            if _is_unchanged(pulled, given):
                return grad.to(x.dtype), None, None, None
            back = like(grad, pulled).to(x.dtype)
            if torch.is_grad_enabled():  # somebody may want to differentiate it
                back = Once.apply(back, ctx.defence, grad, x)
            return back, None, None, None

    return Defend


def _torch(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling():  # importing the compiler to tell it off takes seconds
        return torch.compiler.disable(_torch_eager)(defence, x, y, index)  # type: ignore[no-any-return]
    return _torch_eager(defence, x, y, index)


def _torch_eager(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    torch = sys.modules["torch"]
    if recorder := _recorder(torch, x):
        raise RuntimeError(RECORDED.format(defence, recorder))
    if torch._C._current_graph_task_id() == -1:
        return _torch_pass(defence, x, y, index)
    with FROZEN.borrowed():  # a backward pass calls, on a thread of torch's for each GPU
        if defence._draws_afresh:
            raise RuntimeError(RECOMPUTED.format(defence))
        return _torch_pass(defence, x, y, index)


def _torch_pass(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    passed: list[Any] = []
    out = _torch_function().apply(x, defence, index, passed)
    return out, _labels(defence, y, x, passed[0])


def _recorder(torch: Any, x: Any) -> str:
    """What records the operations on `x` as a program, if anything does."""
    if torch.jit.is_tracing():
        return "torch.jit.trace"
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        return "make_fx or torch.export"
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return "torch.export" if fakes is not None and isinstance(x, fakes.FakeTensor) else ""


# TensorFlow: eager, and traced by tf.function


def _tensorflow(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    # AutoGraph would convert what runs in NumPy as well, and log a warning for what it cannot convert.
    unconverted = sys.modules["tensorflow"].autograph.experimental.do_not_convert(_tensorflow_pass)
    return unconverted(defence, x, y, index)  # type: ignore[no-any-return]


def _tensorflow_pass(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    tf = sys.modules["tensorflow"]
    for kind, remedy in ((tf.RaggedTensor, "x.to_tensor()"), (tf.SparseTensor, "tf.sparse.to_dense(x)")):
        if isinstance(x, kind):
            raise ArgumentError(f"`x` must be a dense tensor, got a {kind.__name__}; pass {remedy}.")
    x = tf.convert_to_tensor(x)
    if defence._draws_afresh and _is_recomputed():
        raise RuntimeError(RECOMPUTED.format(defence))
    if _traced("tensorflow", x, y):
        return _tensorflow_traced(defence, x, y, index)
    batch = defence._checked(x.numpy(), runs=True, kept=True)
    draw = _draw(defence, batch, index)
    # Not in the function below, which may not use the variables of models that the defence runs.
    out = tf.convert_to_tensor(defence._run(batch, draw))

    def pull(grad: Array) -> Array:
        return defence._pull_back(batch, grad, draw).astype(batch.dtype, copy=False)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def defend(x: Any) -> Any:
        def backward(grad: Any) -> Any:
            if tf.is_symbolic_tensor(grad):  # a Jacobian, whose rows are computed in a graph
                pulled = tf.numpy_function(pull, [grad], x.dtype)
                pulled.set_shape(x.shape)
            else:
                given = grad.numpy()
                computed = defence._pull_back(batch, given, draw)
                if _is_unchanged(computed, given):
                    return tf.cast(grad, x.dtype)
                pulled = tf.convert_to_tensor(computed.astype(batch.dtype, copy=False))

            @tf.custom_gradient  # type: ignore[untyped-decorator]
            def once(grad: Any, x: Any) -> Any:
                def again(_: Any) -> Any:
                    raise RuntimeError(TWICE.format(defence))

                return tf.identity(pulled), again

            return once(grad, x)

        return tf.identity(out), backward

    return defend(x), _labels(defence, y, x, draw)


def _has_tangent(x: Any) -> bool:
    """Whether a forward accumulator follows a tensor of TensorFlow's."""
    from tensorflow.python.eager.forwardprop_util import pack_tangents

    return bool(pack_tangents([x]).tangents)


def _is_recomputed() -> bool:
    """Whether the backward pass of `tf.recompute_grad` is what calls."""
    frame = sys._getframe().f_back
    while frame is not None and frame.f_code.co_name != "inner_recompute_grad":
        frame = frame.f_back
    return frame is not None


def _tensorflow_traced(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    tf = sys.modules["tensorflow"]
    if _has_tangent(x):
        raise RuntimeError(FORWARD.format(defence))
    if x.shape.is_fully_defined():  # an error of the graph would be one of TensorFlow's
        defence._check_shape(tuple(x.shape))
    dtype = tf.as_dtype(defence._output_dtype(np.dtype(x.dtype.as_numpy_dtype)))
    if index is not None and not tf.is_symbolic_tensor(index) and x.shape.is_fully_defined():
        index = _numbers(defence, tuple(x.shape), index)  # refused here, not by an error of the graph
    seed = tf.constant(np.zeros(0, dtype=np.uint32))
    if defence._seed_words:
        operands = [tf.shape(x)] if index is None else [tf.shape(x), tf.convert_to_tensor(index)]
        seed = tf.numpy_function(lambda *of: _seed_of_callback(defence, *of), operands, tf.uint32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def defend(x: Any, seed: Any) -> Any:
        out = tf.numpy_function(lambda x, s: _forward(defence, x, s), [x, seed], dtype)
        if x.shape.rank is not None:
            out.set_shape(_static_shape(defence, x.shape))

        return out, lambda grad: (pull(x, seed, grad), None)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def pull(x: Any, seed: Any, grad: Any) -> Any:
        pulled = tf.numpy_function(lambda x, s, g: _backward(defence, x, s, g), [x, seed, grad], x.dtype)
        pulled.set_shape(x.shape)

        def again(back: Any) -> Any:
            passed = tf.numpy_function(
                lambda *arrays: _passed_on(defence, *arrays), [x, seed, grad, back], back.dtype
            )
            passed.set_shape(grad.shape)
            return tf.zeros_like(x), None, tf.cast(passed, grad.dtype)

        return pulled, again

    out = x if defence.domains == ("labels",) else defend(x, seed)
    if y is None or not defence._changes_labels:
        return out, y
    check_array_labels(y, "tf.function")
    y = tf.convert_to_tensor(y)
    dtype, shape = _label_spec(defence, y, x)
    labels = tf.numpy_function(lambda y, x, s: _relabel(defence, y, x, s), [y, x, seed], tf.as_dtype(dtype))
    labels.set_shape(shape)
    return out, labels


def _static_shape(defence: "Preprocessor", shape: Any) -> list[int | None]:
    """Shape of the output where it does not depend on axes of unknown length, which are tried at two."""
    one, two = (defence._output_shape(tuple(n or length for n in shape)) for length in (1 << 20, 1 << 21))
    return [a if a == b else None for a, b in zip(one, two, strict=True)]


def _label_spec(defence: "Preprocessor", y: Any, x: Any) -> tuple[Dtype, list[int | None] | None]:
    """Dtype of the labels, and their shape: None where it depends on an axis of unknown length or a rank."""
    ranks = {"image": 4, "video": 5}
    of_x = [None] * ranks.get(defence.domains[0], 2) if x.shape.rank is None else x.shape.as_list()
    of_y = [None] * 2 if y.shape.rank is None else y.shape.as_list()
    if of_x and of_y:
        of_x[0] = of_y[0] = of_x[0] or of_y[0]  # a label for each sample
    one, two = (
        _label_example(
            defence,
            tuple(n or length for n in of_y),
            y.dtype.as_numpy_dtype,
            tuple(n or length for n in of_x),
            x.dtype.as_numpy_dtype,
        )
        for length in UNKNOWN
    )
    if y.shape.rank is None:
        return one.dtype, None
    return one.dtype, [a if a == b else None for a, b in zip(one.shape, two.shape, strict=True)]


# JAX: eager, and traced by jit and grad


def _jax(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    if _traced("jax", x, y, index):
        return _jax_traced(defence, x, y, index)
    batch = defence._checked(to_numpy(x), runs=True)
    draw = _draw(defence, batch, index)
    return like(x, defence._run(batch, draw)), _labels(defence, y, x, draw)


def _jax_traced(defence: "Preprocessor", x: Any, y: Any, index: Any) -> tuple[Any, Any]:
    jax = sys.modules["jax"]
    from jax.experimental import io_callback

    defence._check_shape(x.shape)

    def call_back(function: Any, shape: Shape, dtype: Any, *args: Any) -> Any:
        result = jax.ShapeDtypeStruct(shape, dtype)
        return jax.pure_callback(
            lambda *arrays: np.asarray(function(defence, *map(np.asarray, arrays)), dtype=dtype),
            result,
            *args,
            vmap_method="sequential",
        )

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def defend(x: Any, seed: Any) -> Any:
        dtype = defence._output_dtype(np.dtype(x.dtype))
        return call_back(_forward, defence._output_shape(x.shape), dtype, x, seed)

    def forward(x: Any, seed: Any) -> Any:
        return defend(x, seed), (x, seed)

    def backward(kept: Any, grad: Any) -> Any:
        x, seed = kept
        return call_back(_backward, x.shape, x.dtype, x, seed, grad), None

    defend.defvjp(forward, backward)
    if index is not None and not _traced("jax", index):
        index = _numbers(defence, x.shape, index)  # refused here, not by an error of the graph
    seed = np.zeros(0, dtype=np.uint32)
    if defence._seed_words:
        operands = () if index is None else (jax.numpy.asarray(index),)
        seed = io_callback(
            lambda *index: _seed_of_callback(defence, x.shape, *map(np.asarray, index)),
            jax.ShapeDtypeStruct((defence._seed_words + (len(x) if operands else 0),), np.uint32),
            *operands,
            ordered=False,
        )
    out = x if defence.domains == ("labels",) else defend(x, seed)
    if y is None or not defence._changes_labels:
        return out, y
    check_array_labels(y, "jax.jit")
    x, y = jax.lax.stop_gradient((x, jax.numpy.asarray(y)))  # labels have no gradient
    example = _label_example(defence, y.shape, y.dtype, x.shape, x.dtype)
    return out, call_back(_relabel, example.shape, example.dtype, y, x, seed)
