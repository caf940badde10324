# SPDX-License-Identifier: BSD-3-Clause
"""What no operator may do, whatever is given to it: a table of all operators and all faults, made from descriptions.

An operator enters the table by being registered. Its arguments are made from their kinds.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from foreign_tensors import tensor_on
from modules import jax_numpy
from operators import flattened, like
from torch.autograd import forward_ad

from twostream_ext import _C, ops
from twostream_ext.ops._door import KINDS, Flow, PerField
from twostream_ext.ops._operator import OPERATORS, Operator

REQUIRED = inspect.Parameter.empty


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def grey(*shape: int) -> torch.Tensor:
    return (noise(*shape) * 40 + 120).clamp(0, 255).byte()


# An example of each kind of argument. Codes stand for flow where ranges are given.
EXAMPLES: dict[str, Callable[[], Any]] = {
    "Flow": lambda: noise(2, 2, 8, 9, 2),
    "Codes": lambda: grey(2, 2, 8, 9, 2),
    "Frames": lambda: noise(2, 8, 9, 3),
    "GreyFrames": lambda: grey(2, 8, 9),
    "Displacements": lambda: noise(2, 8, 9, 2),
    "GreyClip": lambda: grey(3, 8, 9),
    "FeatureMaps": lambda: noise(2, 6, 4, 5),
    "Windows": lambda: torch.tensor([[0, 1, 1], [2, 0, 0]], dtype=torch.int32),
    "PerField": lambda: noise(2, 2, 2).abs() + 0.5,
    "AffineMaps": lambda: noise(2, 2, 2, 3) * 0.1,
    "PerFrame": lambda: noise(2, 3),
    "Sizes": lambda: torch.tensor([[8, 9], [7, 9]]),
    "Size": lambda: 4,
    "Colour": lambda: (3.0, 2.0, 1.0),
    "Counter": lambda: 3,
    "float": lambda: 0.5,
    "int": lambda: 2,
    "bool": lambda: True,
    "torch.dtype": lambda: torch.float32,
}


class Call(NamedTuple):
    """A call of an operator's public function with everything by name."""

    operator: Operator[Any]
    arguments: dict[str, Any]

    def __call__(self, **more: Any) -> Any:
        return self.operator.function(**{**self.arguments, **more})

    def of(self, name: str) -> Callable[[torch.Tensor], Any]:
        """The call as a function of one argument."""
        return lambda value: self(**{name: value})

    def arrays(self) -> list[str]:
        return [each.name for each in self.operator.parameters if each.is_tensor and each.name in self.arguments]

    def floats(self) -> list[str]:
        return [name for name in self.arrays() if self.arguments[name].is_floating_point()]


def example(operator: Operator[Any], device: torch.device, *, coded: bool = False) -> Call:
    """A call with all that may be given: with ranges if `coded`, for the operators that take codes and floats alike."""
    arguments = {}
    names = {each.name for each in operator.parameters}
    for each in operator.parameters:
        if each.is_tensor and each.name in ("lo", "step") and each.optional and not coded:
            continue
        if "camera" in names and each.name == ("mean" if coded else "camera"):  # one of them at most
            continue
        if each.is_tensor or each.default is REQUIRED:
            kind = "Codes" if each.kind == "Flow" and coded and "lo" in names else each.kind
            value = EXAMPLES[kind]()
            arguments[each.name] = value.to(device) if each.is_tensor else value
        elif each.kind == "int":
            arguments[each.name] = min(each.default, 5)  # so many iterations are enough
    return Call(operator, arguments)


def examples(operator: Operator[Any], device: torch.device) -> list[Call]:
    return [example(operator, device), example(operator, device, coded=True)]


def refused(operator: Operator[Any], argument: str, kinds: Any = ValueError) -> Any:
    """One line that begins with operator and argument."""
    return pytest.raises(kinds, match=rf"^{operator.name}: {re.escape(argument)}\b[^\n]*$")


def same(results: Any, expected: Any) -> bool:
    pairs = zip(flattened(results), flattened(expected), strict=True)
    return all(torch.equal(torch.as_tensor(got).cpu(), wanted.cpu()) for got, wanted in pairs)


def reversed_in_memory(array: np.ndarray) -> np.ndarray:
    """The same values with a negative stride."""
    return array[::-1].copy()[::-1]


# ---- the faults: each is a function of an operator and a device that runs through the operator's arguments ----------


def negative_stride(operator: Operator[Any], device: torch.device) -> None:
    """Is copied where it is read, and refused where it is written."""
    for call in examples(operator, device):
        expected = call()
        for name in call.arrays():
            array = reversed_in_memory(call.arguments[name].numpy())
            assert any(stride < 0 for stride in array.strides)
            assert same(call(**{name: array}), expected)
    with refused(operator, "out"):
        call(out=like(expected, lambda tensor: reversed_in_memory(tensor.numpy())))


def read_only(operator: Operator[Any], device: torch.device) -> None:
    """May be read, without a warning, and not be written."""
    for call in examples(operator, device):
        expected = call()
        for name in call.arrays():
            array = call.arguments[name].numpy().copy()
            array.flags.writeable = False
            assert same(call(**{name: array}), expected)

    def on_bytes(tensor: torch.Tensor) -> np.ndarray:
        array = tensor.numpy()
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)

    with refused(operator, "out"):
        call(out=like(expected, on_bytes))
    assert same(call(out=like(expected, lambda tensor: tensor.numpy().copy())), expected)


def overlap(operator: Operator[Any], device: torch.device) -> None:
    """Of an output with an input or with another output is refused."""
    for call in examples(operator, device):
        results = call()
        for place, result in enumerate(flattened(results)):
            for name in call.arrays():
                given = call.arguments[name]
                room = max(tensor.numel() * tensor.element_size() for tensor in (given, result)) + 64
                memory = torch.zeros(room, dtype=torch.uint8, device=device)
                shared = laid(memory, given).copy_(given)
                out = replaced(results, {place: laid(memory, result)})
                with refused(operator, "out"):
                    call(**{name: shared}, out=out)
    count = len(flattened(results))
    for place in range(1, count):
        parts = flattened(results)
        room = max(tensor.numel() * tensor.element_size() for tensor in parts) + 64
        memory = torch.zeros(room, dtype=torch.uint8, device=device)
        both = replaced(results, {each: laid(memory, parts[each]) for each in (0, place)})
        with refused(operator, "out"):
            call(out=both)


def laid(memory: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor like another at the start of some memory."""
    return memory[: tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape)


def replaced(results: Any, others: dict[int, torch.Tensor]) -> Any:
    """Fresh tensors like the results, but those of some places."""
    places = iter(range(len(flattened(results))))

    def choose(result: torch.Tensor) -> torch.Tensor:
        other = others.get(next(places))
        return torch.empty_like(result) if other is None else other

    return like(results, choose)


def out_of_another_size(operator: Operator[Any], device: torch.device) -> None:
    """Is refused, each output alone."""
    call = example(operator, device)
    results = call()
    for place, result in enumerate(flattened(results)):
        shape = [*result.shape[:-1], result.shape[-1] + 1]
        with refused_one_of(operator, "out", "size"):
            call(out=replaced(results, {place: torch.empty(shape, dtype=result.dtype, device=device)}))
    with refused(operator, "out", (TypeError, ValueError)):
        call(out="nonsense")


def refused_one_of(operator: Operator[Any], *arguments: str) -> Any:
    return pytest.raises(ValueError, match=rf"^{operator.name}: ({'|'.join(arguments)})\b[^\n]*\bout\b|^\w+: out\b")


def size_beside_out(operator: Operator[Any], device: torch.device) -> None:
    """Is looked at, and must be that of out."""
    sizes = [each.name for each in operator.parameters if each.kind == "Size"]
    call = example(operator, device)
    expected = call()
    for name in sizes:
        for nonsense in ("nonsense", 0, -4, (4, 4, 4), 2.5, None, True, 2**40):
            for more in ({}, {"out": like(expected, torch.empty_like)}):
                with refused(operator, name):
                    call(**{name: nonsense}, **more)
        other = call(**{name: 3})
        if [each.shape for each in flattened(other)] != [each.shape for each in flattened(expected)]:
            with pytest.raises(ValueError, match=rf"^{operator.name}: {name} [^\n]*\bout\b"):
                call(**{name: 3}, out=like(expected, torch.empty_like))


def another_device(operator: Operator[Any], device: torch.device) -> None:
    """Is refused, whether torch knows it or another library has it."""
    for call in examples(operator, device):
        out = like(call(), torch.empty_like)
        names = call.arrays()
        for name in names:
            moved = {name: call.arguments[name].to("meta")}
            for more in ({"out": out}, {}) if len(names) > 1 else ({"out": out},):
                with pytest.raises(ValueError, match=rf"^{operator.name}: [^\n]* must be on the device of [^\n]*$"):
                    call(**moved, **more)
            with refused(operator, name):
                call(**{name: Elsewhere()})
        with pytest.raises(ValueError, match=rf"^{operator.name}: [^\n]* must be on the device of [^\n]*$"):
            call(out=like(out, lambda tensor: tensor.to("meta")))
        with refused(operator, "out"):
            call(out=like(out, lambda tensor: Elsewhere()))


class Elsewhere:
    """An array on a device of a kind that no kernel of ours works on: DLPack's number of Metal."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 8, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("asked for memory that is out of reach")


def default_dtype(operator: Operator[Any], device: torch.device) -> None:
    """Of torch changes nothing."""
    for call in examples(operator, device):
        expected = call()
        torch.set_default_dtype(torch.float64)
        try:
            got = call()
        finally:
            torch.set_default_dtype(torch.float32)
        assert [each.dtype for each in flattened(got)] == [each.dtype for each in flattened(expected)]
        assert same(got, expected)


def default_device(operator: Operator[Any], device: torch.device) -> None:
    """Of torch changes nothing."""
    for call in examples(operator, device):
        lists = {name: call.arguments[name].tolist() for name in call.arrays() if kind_of(operator, name) == "Sizes"}
        for more in ({}, lists):
            expected = call(**more)
            with torch.device("meta"):
                got = call(**more)
            assert [each.device for each in flattened(got)] == [each.device for each in flattened(expected)]
            assert same(got, expected)


def kind_of(operator: Operator[Any], name: str) -> str:
    return next(each.kind for each in operator.parameters if each.name == name)


def empty_list(operator: Operator[Any], device: torch.device) -> None:
    """Is no batch."""
    for call in examples(operator, device):
        for each in operator.parameters:
            if (each.is_list and each.name in call.arguments) or each.kind == "Sizes":
                with refused(operator, each.name):
                    call(**{each.name: []})
    with refused(operator, "out", (TypeError, ValueError)):
        call(out=[])


def forward_mode(operator: Operator[Any], device: torch.device) -> None:
    """Gives the derivative or is refused; it is not dropped."""
    for call in examples(operator, device):
        for name in call.floats():
            value = call.arguments[name]
            tangent = torch.ones_like(value) / 8
            words = rf"^{operator.name}: no forward-mode derivative is computed for {name}\b"
            expected = None
            with contextlib.suppress(RuntimeError):
                _, expected = torch.func.jvp(call.of(name), (value,), (tangent,))
            with forward_ad.dual_level():
                dual = {name: forward_ad.make_dual(value, tangent)}
                with pytest.raises(RuntimeError, match=rf"^{operator.name}: (out= cannot|no forward-mode)"):
                    call(**dual, out=like(call(), torch.empty_like))
                if expected is None:
                    with pytest.raises(RuntimeError, match=words):
                        call(**dual)
                    continue
                got = forward_ad.unpack_dual(call(**dual)).tangent
            assert same(got, expected)
            difference = (call(**{name: value + tangent}).double() - call(**{name: value - tangent}).double()) / 2
            torch.testing.assert_close(got.double(), difference, rtol=1e-4, atol=1e-5)


def reverse_mode(operator: Operator[Any], device: torch.device) -> None:
    """Gives the gradient or is refused; it is not dropped."""
    of = operator.gradient.of if operator.gradient is not None else ()
    for call in examples(operator, device):
        out = like(call(), torch.empty_like)
        for name in call.floats():
            leaf = call.arguments[name].clone().requires_grad_()
            with pytest.raises(RuntimeError, match=rf"^{operator.name}: (out= cannot|no gradient)"):
                call(**{name: leaf}, out=out)
            if name not in of:
                with pytest.raises(RuntimeError, match=rf"^{operator.name}: no gradient is computed for {name}\b"):
                    call(**{name: leaf})
                continue
            weights = noise(*out.shape).to(device)
            (expected,) = torch.autograd.grad(call(**{name: leaf}), leaf, weights)
            _, pull_back = torch.func.vjp(call.of(name), leaf.detach())
            assert torch.equal(pull_back(weights)[0], expected)


def vmap(operator: Operator[Any], device: torch.device) -> None:
    """Is refused: an operator takes a batch as it is."""
    for call in examples(operator, device):
        for name in call.arrays():
            with pytest.raises(RuntimeError, match=rf"^{operator.name}: torch.vmap is not supported"):
                torch.func.vmap(call.of(name))(call.arguments[name][None])


def wrong_type(operator: Operator[Any], device: torch.device) -> None:
    """Is refused for every argument, by its name."""
    for call in examples(operator, device):
        for each in operator.parameters:
            for nonsense in (object(), "nonsense", 1j, *(() if each.optional else (None,))):
                with refused(operator, each.name, (TypeError, ValueError)):
                    call(**{each.name: nonsense})


FAULTS: dict[str, Callable[[Operator[Any], torch.device], None]] = {
    fault.__name__: fault
    for fault in (
        negative_stride,
        read_only,
        overlap,
        out_of_another_size,
        size_beside_out,
        another_device,
        default_dtype,
        default_device,
        empty_list,
        forward_mode,
        reverse_mode,
        vmap,
        wrong_type,
    )
}
OF_NUMPY = ("negative_stride", "read_only")


def table() -> list[tuple[str, str]]:
    """Every operator with every fault."""
    return [(operator, fault) for operator in OPERATORS for fault in FAULTS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "fault"), table())
def test_every_operator_against_every_fault(device: torch.device, name: str, fault: str) -> None:
    if device.type == "cuda" and fault in OF_NUMPY:
        pytest.skip("NumPy has the host's memory")
    FAULTS[fault](OPERATORS[name], device)


def test_every_kind_of_argument_has_an_example() -> None:
    assert set(EXAMPLES) == set(KINDS)


def test_every_public_function_is_in_the_table() -> None:
    assert set(OPERATORS) == {name for name in ops.__all__ if hasattr(torch.ops.twostream, name)}


def field_average(flow: Flow, *, lo: PerField | None = None, step: PerField | None = None, out: Any = None) -> Any:
    """A throw-away operator: that of mean_flow under another name."""
    return OPERATORS["field_average"].call(flow, lo, step, out=out)


@pytest.fixture
def throw_away() -> Iterator[None]:
    def allocate(flow: list[torch.Tensor]) -> torch.Tensor:
        return flow[0].new_empty([*flow[0].shape[:2], 2], dtype=torch.float32)

    def fill(flow: list[torch.Tensor], lo: Any, step: Any, *, out: torch.Tensor) -> None:
        _C.mean_flow("field_average", flow, lo, step, out)

    fill.__annotations__["out"] = "Tensor"
    Operator(field_average, allocate=allocate, fill=fill)
    yield
    del OPERATORS["field_average"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_new_operator_enters_the_table_by_being_registered(throw_away: None) -> None:
    assert {fault for operator, fault in table() if operator == "field_average"} == set(FAULTS)
    for fault in FAULTS.values():
        fault(OPERATORS["field_average"], torch.device("cpu"))


def as_of_jax(memory: np.ndarray) -> Any:
    """An array of JAX, or where there is none, what it shows of itself: DLPack does not tell that it never changes."""
    jax = jax_numpy()
    if jax is None:

        class Array:
            __module__ = "jaxlib._jax"

            def __dlpack__(self, *, stream: object = None) -> object:
                return memory.__dlpack__(stream=stream)

            def __dlpack_device__(self) -> tuple[int, int]:
                return memory.__dlpack_device__()

        return Array()
    return jax.asarray(memory)


def test_an_array_of_jax_is_read_and_never_written() -> None:
    flow, out = np.ones((2, 3, 8, 9, 2), np.float32), np.zeros((2, 3, 2), np.float32)
    assert same(ops.mean_flow(as_of_jax(flow)), torch.ones(2, 3, 2))
    array = as_of_jax(out)
    words = "mean_flow: out must be an array to write into, got one of JAX, whose arrays never change"
    with pytest.raises(ValueError, match=f"^{words}$"):
        ops.mean_flow(flow, out=array)
    assert not torch.from_dlpack(array).any()


def test_a_device_that_is_neither_cpu_nor_cuda_reaches_no_kernel(cuda_on_host: Any) -> None:
    """A tensor of another framework, or of a torch built for another device, that the dispatcher let through."""
    flow, out = torch.zeros(2, 2, 8, 9, 2), torch.zeros(2, 2, 2)
    for module in (_C, cuda_on_host):
        for device_type in (3, 4, 7, 8, 10, 13, 14, 17):
            with pytest.raises(
                ValueError, match=r"^mean_flow: flow must be on the CPU or on a CUDA device, got \[2, 2,"
            ):
                module.mean_flow("mean_flow", [tensor_on(device_type, flow)], None, None, out)
            with pytest.raises(ValueError, match=r"^mean_flow: out must be on the CPU or on a CUDA device"):
                module.mean_flow("mean_flow", [flow], None, None, tensor_on(device_type, out))
        module.mean_flow("mean_flow", [tensor_on(1, flow)], None, None, out)  # the CPU's number passes


def test_a_list_is_named_by_the_place_of_the_one_that_overlaps() -> None:
    memory = torch.zeros(2 * 3 * 4 * 2 + 4)
    fields = [torch.zeros(2, 3, 4, 2), memory[:48].view(2, 3, 4, 2)]
    with pytest.raises(ValueError, match=r"mean_flow: out must be in memory of its own, got .* overlaps flow\[1\]"):
        ops.mean_flow(fields, out=memory[44:].new_empty(0).set_(memory.untyped_storage(), 40, (2, 2, 2)))
    ops.mean_flow(fields, out=torch.zeros(2, 2, 2))


def test_colours_in_the_order_of_opencv() -> None:
    """The everyday view that turns BGR into RGB: it ended the process."""
    frames = np.arange(2 * 8 * 9 * 3, dtype=np.uint8).reshape(2, 8, 9, 3)
    windows = np.zeros((2, 3), dtype=np.int32)
    options = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    got = ops.crop_frames(frames[..., ::-1], windows, 4, **options)
    assert torch.equal(got, ops.crop_frames(frames, windows, 4, **options).flip(1))
    images = [frame[..., ::-1] for frame in frames]
    assert torch.equal(ops.crop_frames(images, windows, 4, **options), got)


def test_what_a_library_cannot_export_is_named() -> None:
    with pytest.raises(TypeError, match="mean_flow: flow must be an array of numbers"):
        ops.mean_flow(np.array([[None]]))


def test_the_build_is_described() -> None:
    info = ops.build_info()
    assert (info.version, info.isa) == (_C.version(), _C.cpu_isa())
    assert bool(info.cuda_architectures) == ops.built_with_cuda()
    assert info.cuda_devices >= 0
    assert info.cuda_driver >= 0
