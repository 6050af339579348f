"""Convolutions, grey images and pooling of src/exact: values, gradients, and bits everywhere."""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exact
from conftest import bits
from exact import functional
from exact.random import Generator
from test_exact import with_gradients

# Images, channels, outputs, kernel, stride, padding: odd sizes, more than a vector, empty parts.
SHAPES = [
    (3, 1, 8, (3, 3), 1, 1),
    (3, 5, 50, (4, 4), 2, 1),
    (2, 17, 1, (1, 1), 1, 0),
    (2, 3, 4, (2, 3), (3, 5), (1, 2)),
    (40, 16, 32, (5, 5), 2, 2),
    (0, 2, 3, (3, 3), 2, 1),
]
KINDS = ("conv2d", "conv_transpose2d")


def example(kind: str, images: int, channels: int, outputs: int, kernel: tuple) -> list[Tensor]:
    """Images, weight and bias."""
    sizes = (outputs, channels) if kind == "conv2d" else (channels, outputs)
    shapes = (images, channels, 9, 7), (*sizes, *kernel), (outputs,)
    generator = Generator(0)
    return [generator.normal(*shape).requires_grad_() for shape in shapes]


def worked(module, kind: str, tensors: list[Tensor], *steps) -> list[Tensor]:
    return with_gradients(getattr(module, kind)(*tensors, *steps), tensors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_float64_autograd(kind, shape):
    *sizes, stride, padding = shape
    tensors = example(kind, *sizes)
    doubles = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found = worked(functional, kind, tensors, stride, padding)
    expected = worked(nn.functional, kind, doubles, stride, padding)
    for ours, double in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        scale = max(1.0, double.abs().max().item()) if double.numel() else 1.0
        np.testing.assert_allclose(ours, double, rtol=0, atol=3e-6 * scale)


def test_the_bits_are_those_of_other_machines():
    found = hashlib.md5()
    for kind, (*sizes, stride, padding) in itertools.product(KINDS, SHAPES):
        found.update(bits(*worked(functional, kind, example(kind, *sizes), stride, padding)))
    assert found.hexdigest() == "a20842617980b19c954e0a44f797dea6"


def test_a_convolution_is_one_chain_in_the_written_order():
    x, w, b = (tensor.detach() for tensor in example("conv2d", 2, 3, 4, (3, 2)))
    y = functional.conv2d(x, w, b, 2, 1)
    image, i, j, output = 1, 2, 3, 2
    total = b[output].item()
    for u, v, c in itertools.product(range(3), range(2), range(3)):
        h, k = 2 * i - 1 + u, 2 * j - 1 + v
        if 0 <= h < 9 and 0 <= k < 7:
            # In float64 the product is exact and the sum nearly always rounds as a fused one.
            total = np.float32(x[image, c, h, k].double() * w[output, c, u, v].double() + total)
            total = float(total)
    assert y[image, output, i, j].item() == total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_do_not_depend_on_threads_or_memory_format(kind, shape, restored_modes):
    *sizes, stride, padding = shape
    x, w, b = example(kind, *sizes)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    found = set()
    for threads, images in ((1, x), (2, x), (3, x), (16, x), (2, last)):
        exact.set_threads(threads)
        found.add(bits(*worked(functional, kind, [images, w, b], stride, padding)))
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_an_images_bits_do_not_depend_on_its_batch(kind, shape):
    *sizes, stride, padding = shape
    x, w, b = example(kind, *sizes)
    ys = [getattr(functional, kind)(part, w, b, stride, padding) for part in x.split(1)]
    whole = worked(functional, kind, [x, w, b], stride, padding)
    assert bits(*with_gradients(torch.cat(ys), [x])) == bits(*whole[:2])


def test_bytes_give_the_bits_of_the_same_numbers_as_float32():
    layer = exact.nn.Conv2d(1, 8, 3, padding=1)
    images = (torch.rand(4, 1, 28, 28) < 0.2).to(torch.uint8)
    assert bits(layer(images)) == bits(layer(images.float()))
    with pytest.raises(ValueError, match="zeros and ones"):
        layer(images * 2)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Conv2d", {}), ("ConvTranspose2d", {"output_padding": 1, "bias": False})],
)
def test_layers_have_the_parameters_of_torchs(name, settings, restored_modes):
    arguments = {"kernel_size": (3, 5), "stride": 2, "padding": (1, 2), **settings}
    ours, theirs = (getattr(library, name)(3, 4, **arguments) for library in (exact.nn, nn))
    assert isinstance(ours, type(theirs))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    exact.set_arithmetic("torch")
    assert torch.equal(ours(x), theirs(x))
    exact.set_arithmetic("exact")
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))


def convolved(*shapes: Sequence[int]) -> Tensor:
    return functional.conv2d(*map(torch.zeros, shapes))


WRONG = {
    "groups": (lambda: exact.nn.Conv2d(2, 2, 3, groups=2), "should be 1"),
    "dilation": (lambda: exact.nn.Conv2d(2, 2, 3, dilation=2), "should be 1"),
    "named padding": (lambda: exact.nn.Conv2d(2, 2, 3, padding="same"), "as numbers"),
    "no zeros": (lambda: exact.nn.Conv2d(2, 2, 3, 1, 1, padding_mode="circular"), "zeros"),
    "channels": (lambda: convolved((2, 3, 5, 5), (4, 2, 3, 3)), "do not fit weight"),
    "one image": (lambda: convolved((3, 5, 5), (4, 3, 3, 3)), "do not fit weight"),
    "a bias": (lambda: convolved((2, 3, 5, 5), (4, 3, 3, 3), (3,)), "bias should be"),
    "a large kernel": (lambda: convolved((2, 3, 5, 5), (4, 3, 6, 6)), "larger than the images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    function, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        function()


@pytest.mark.parametrize("grey", ["bytes", "floats"])
@pytest.mark.parametrize("log_variance", ["number", "tensor"])
def test_gaussian_nll_and_its_gradients_are_those_of_float64(grey, log_variance):
    images = torch.arange(5 * 784).view(5, 784).remainder(256).byte()
    mean, spread = Generator(0).normal(2, 3, 5, 784).requires_grad_()
    v, leaves = (spread, [mean, spread]) if log_variance == "tensor" else (-1.5, [mean])
    terms = functional.gaussian_nll(mean, images if grey == "bytes" else images / 255, v)
    deviation = torch.exp(torch.as_tensor(v).double() / 2)
    normal = torch.distributions.Normal(mean.double(), deviation)
    expected = -normal.log_prob(images.double() / 255).sum(-1)
    results = [with_gradients(each, leaves) for each in (terms, expected)]
    torch.testing.assert_close(*results, rtol=2e-6, atol=1e-6)


def test_a_step_of_convolutions_has_exact_operations_only():
    there, back = exact.nn.Conv2d(1, 4, 3, padding=1), exact.nn.ConvTranspose2d(4, 2, 4, 2, 1)
    model = nn.Sequential(there, nn.ReLU(), nn.MaxPool2d(2), back)
    images = torch.rand(3, 1, 8, 8)

    def step() -> None:
        mean, log_variance = model(images).flatten(2).unbind(1)
        terms = functional.gaussian_nll(mean, images.flatten(1), log_variance)
        functional.weighted_sum([terms], [1.0]).backward()
        exact.optim.Adam(model.parameters()).step()

    assert exact.inexact_operations(step) == []


@pytest.mark.parametrize("kernel, stride, exactly", [(2, 2, True), (2, 3, True), (3, 2, False)])
def test_pooling_is_exact_where_windows_do_not_overlap(kernel, stride, exactly):
    x = torch.rand(2, 3, 9, 9, requires_grad=True)

    def step() -> None:
        y = nn.functional.max_pool2d(x, kernel, stride)
        y.backward(torch.ones_like(y))

    assert (exact.inexact_operations(step) == []) == exactly


def test_gradients_of_a_torch_sum_reach_the_losses():
    """Their memory is a copy that only the call has; once it was freed before the call."""
    posterior = torch.randn(128, 4, requires_grad=True)
    exact.functional.gaussian_kl(posterior).sum().mul(3).backward()
    mean, log_variance = posterior.detach().double().chunk(2, 1)
    expected = torch.cat([3 * mean, 1.5 * (log_variance.exp() - 1)], 1)
    torch.testing.assert_close(posterior.grad.double(), expected, rtol=1e-5, atol=1e-6)
