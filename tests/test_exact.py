"""The exact operations against float64 autograd; their bits under other threads, batches, modes."""

import copy
import io
import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exact
from conftest import bits, model_of
from exact import functional
from exact.random import Generator
from vae.decomposition import decomposition, units
from vae.frames import FrameRecorder, grid_axis, latent_grid
from vae.importance import log_likelihoods
from vae.inference import anomaly_scores, reconstruct
from vae.objective import loss_function
from vae.params import Architecture
from vae.stream import RandomStream
from vae.training import Start, inexact_steps, train
from vae.training import test as evaluate

POSTS = [
    Architecture(hidden_sizes=(400,), latent_size=20),
    Architecture(hidden_sizes=(400, 150), latent_size=2),
]
ODD = [
    Architecture(hidden_sizes=(), latent_size=1),
    Architecture(hidden_sizes=(1, 3, 17), latent_size=3),
    Architecture(hidden_sizes=(17,), latent_size=5, decoder_hidden_sizes=()),
    Architecture(hidden_sizes=(1500,), latent_size=2, decoder_hidden_sizes=(3,)),
    Architecture(hidden_sizes=(9,) * 12, latent_size=2),
    Architecture(hidden_sizes=(1024,), latent_size=2),  # rows 4,096 bytes apart are packed
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Generator(seed).normal(*shape)


def work(batch: int, latent: int) -> tuple[Tensor, Tensor]:
    """Images `(batch, 784)`, a fifth of whose pixels are 1, and noise."""
    images = (normal(batch, 784, seed=batch) > 0.84).byte()
    return images, normal(batch, latent, seed=1)


def with_gradients(y: Tensor, leaves: Iterable[Tensor]) -> list[Tensor]:
    """A result, and the gradients of its product with some numbers."""
    by_y = normal(*y.shape, seed=1).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [*leaves], by_y)]


@pytest.mark.parametrize(("batch", "beta"), [(1, 1), (7, 4), (127, 0.3), (128, 1), (129, 0)])
@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_losses_and_gradients_are_those_of_float64_autograd(architecture, batch, beta):
    """In float64 the same code calls PyTorch's own functions."""
    model, (images, noise) = model_of(architecture), work(batch, architecture.latent_size)
    results = []
    for kind in (torch.float32, torch.float64):
        logits, kl = model.to(kind)(images, noise.to(kind))
        loss, reconstruction = loss_function(logits, images, kl, beta)
        gradients = torch.autograd.grad(loss, [*model.parameters()])
        results.append((torch.stack((reconstruction, kl)), gradients))
    (terms, gradients), (expected_terms, expected) = results
    torch.testing.assert_close(terms, expected_terms, rtol=1e-5, atol=1e-4)
    for found, reference in zip(gradients, expected, strict=True):
        error = (found - reference).abs().numpy()
        scale = max(reference.abs().max().item(), 1e-2)
        assert np.quantile(error, 0.999) <= 2e-5 * scale
        # A ReLU within rounding of 0 may open the other way, for one row.
        assert error.max() <= 1e-2 * scale


PIXELS = (torch.arange(33).view(3, 11) % 3 == 0).byte()
# A function of float32, and the same by PyTorch in float64.
FUNCTIONS = {
    "linear": (lambda x: functional.linear(x, normal(5, 11), normal(5), relu=True),
               lambda x: (x @ normal(5, 11).double().t() + normal(5).double()).relu()),
    "linear in its weight": (lambda w: functional.linear(normal(3, 11), w.view(11, 3).t()),
                             lambda w: normal(3, 11).double() @ w.view(11, 3)),
    "linear of more dimensions": (lambda x: functional.linear(x.view(3, 1, 11), normal(5, 11)),
                                  lambda x: x.view(3, 1, 11) @ normal(5, 11).double().t()),
    "linear of strided rows": (lambda x: functional.linear(x.t(), normal(5, 3)),
                               lambda x: x.t() @ normal(5, 3).double().t()),
    "bernoulli_nll": 2 * (lambda x: functional.bernoulli_nll(torch.stack((x, 2 * x)), PIXELS),),
    "gaussian_sample": (lambda x: functional.gaussian_sample(x[:, 1:], normal(4, 3, 5)),
                        lambda x: functional.gaussian_sample(x[:, 1:], normal(4, 3, 5).double())),
    "gaussian_kl": 2 * (lambda x: functional.gaussian_kl(x[:, 1:]),),
    "sigmoid": (functional.sigmoid, torch.sigmoid),
    "exp": (functional.exp, torch.exp),
    "log": (lambda x: functional.log(x * x + 0.1), lambda x: torch.log(x * x + 0.1)),
    "sum": (functional.sum, lambda x: x.sum(0)),
    "weighted_sum": (lambda x: functional.weighted_sum((x, x * x), (2.0, -0.5)),
                     lambda x: 2 * x.sum() - 0.5 * (x * x).sum()),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_and_its_gradient_are_those_of_float64(name):
    x, results = normal(3, 11, seed=2), []
    for function, leaf in zip(FUNCTIONS[name], (x, x.double()), strict=True):
        results.append(with_gradients(function(leaf.requires_grad_()), [leaf]))
    torch.testing.assert_close(*results, rtol=2e-6, atol=2e-6, check_dtype=False)


def trained(architecture: Architecture, threads: int) -> bytes:
    """The bits of values and moments after three steps."""
    exact.set_threads(threads)
    model, (images, noise) = model_of(architecture), work(129, architecture.latent_size)
    adam = exact.optim.Adam(model.parameters())
    for _ in range(3):
        adam.zero_grad()
        logits, kl = model(images, noise)
        loss_function(logits, images, kl)[0].backward()
        adam.step()
    moments = [state[name] for state in adam.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return bits(*model.parameters(), *moments)


@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_bits_do_not_depend_on_threads_or_subnormal_mode(architecture, restored_modes):
    found = {trained(architecture, threads) for threads in (1, 2, 3, 16)}
    torch.set_flush_denormal(True)
    assert found == {trained(architecture, threads=2)}


@pytest.mark.parametrize("architecture", [*POSTS, *ODD], ids=str)
def test_an_image_does_not_depend_on_those_beside_it(architecture):
    model, (images, noise) = model_of(architecture), work(300, architecture.latent_size)
    with torch.no_grad():
        logits, kl = model(images, noise)
        nll = functional.bernoulli_nll(logits, images)
        for size in (1, 5, 8, 128, 299):
            pairs = zip(images.split(size), noise.split(size), strict=True)
            parts = [(*model(*pair), pair[0]) for pair in pairs]
            found = [(*part, functional.bernoulli_nll(part[0], rows)) for *part, rows in parts]
            assert bits(*map(torch.cat, zip(*found, strict=True))) == bits(logits, kl, nll)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(0, 9, 4), (7, 784, 400), (300, 33, 97)])
def test_bytes_give_the_bits_of_the_dense_product(rows, inputs, outputs, relu):
    ones = (normal(rows, inputs) > 1).byte()
    leaves = [normal(outputs, inputs).requires_grad_(), normal(outputs).requires_grad_()]
    found, dense = (
        bits(*with_gradients(functional.linear(x, *leaves, relu), leaves))
        for x in (ones, ones.float())
    )
    assert found == dense


def test_layers_in_one_operation_give_the_bits_of_each_alone():
    linear, x = exact.nn.Linear, normal(5, 9).requires_grad_()
    layers = [linear(9, 8), nn.ReLU(), linear(8, 7, relu=True), linear(7, 6)]
    layers += [nn.Tanh(), nn.ReLU(), linear(6, 3)]  # and what no operation of ours takes in
    found, alone = (
        bits(*with_gradients(module(x), [x, *module.parameters()]))
        for module in (exact.nn.Sequential(*layers), nn.Sequential(*layers))
    )
    assert found == alone


def test_gradients_accumulate_and_add_up_over_uses_of_a_layer():
    """Of two calls of backward, and of a layer that a batch passes twice."""
    module = exact.nn.Linear(9, 9, relu=True)
    reference = copy.deepcopy(module).double()
    for linear, kind in ((module, torch.float32), (reference, torch.float64)):
        for seed in (1, 2):
            y = linear(linear(normal(5, 9, seed=seed).to(kind)))
            y.backward(normal(5, 9, seed=9).to(kind))
    for found, expected in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-6)


def test_a_kept_graph_gives_its_gradient_twice():
    logits, ones = normal(3, 11).requires_grad_(), torch.ones(3, dtype=torch.float64)
    nll = functional.bernoulli_nll(logits, PIXELS)
    nll.backward(ones, retain_graph=True)
    once = logits.grad.clone()
    nll.backward(ones)
    assert torch.equal(logits.grad, 2 * once)


def test_copies_and_loaded_layers_compute_the_same_bits():
    layer, x, file = exact.nn.Linear(33, 17), normal(5, 33), io.BytesIO()
    plain, loaded, given = nn.Linear(33, 17), exact.nn.Linear(33, 17), exact.nn.Linear(33, 17)
    plain.load_state_dict(layer.state_dict())
    loaded.load_state_dict(plain.state_dict())
    given.weight, given.bias = plain.weight, plain.bias
    torch.save(layer, file)
    file.seek(0)
    results = set()
    for other in (copy.deepcopy(layer), loaded, given, torch.load(file, weights_only=False), layer):
        adam = exact.optim.Adam(other.parameters())
        y = other(x)
        y.backward(normal(5, 17, seed=9))
        adam.step()
        results.add(bits(y, other(x), other.weight.grad, other.bias.grad))
    assert len(results) == 1


def test_a_second_derivative_is_refused():
    for function in (functional.exp, lambda x: functional.linear(x, normal(2, 4))):
        x = normal(3, 4).requires_grad_()
        with pytest.raises(RuntimeError, match="differentiated once only"):
            torch.autograd.grad(function(x).sum(), x, create_graph=True)


TWO, WIDE = torch.tensor([[2]], dtype=torch.uint8), torch.zeros(5, 784)
WRONG = {
    "inputs": lambda: functional.linear(normal(3, 4), normal(2, 5)),
    "inputs of a later layer": lambda: functional.linears(
        normal(3, 4), [(normal(5, 4), None, True), (normal(2, 6), None, False)]
    ),
    "a bias": lambda: functional.linear(normal(3, 4), normal(2, 4), normal(3)),
    "a float64 bias": lambda: functional.linear(normal(3, 4), normal(2, 4), normal(2).double()),
    "float64": lambda: functional.linear(normal(3, 4).double(), normal(2, 4)),
    "int64": lambda: functional.linear(torch.zeros(3, 4).long(), normal(2, 4)),
    "float images": lambda: functional.bernoulli_nll(normal(3, 4), normal(3, 4)),
    "fewer images": lambda: functional.bernoulli_nll(normal(3, 4), torch.zeros(1, 4).byte()),
    "a posterior": lambda: functional.gaussian_sample_and_kl(normal(3, 4), normal(3, 4)),
    "an arithmetic": lambda: exact.set_arithmetic("fast"),
    "a last byte of 2": lambda: functional.linear(nn.functional.pad(TWO, (783, 0, 299, 0)), WIDE),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_and_types_are_refused(name):
    with pytest.raises(ValueError, match=r"fit|should (be|hold)"):
        WRONG[name]()


def test_extreme_logits_and_posteriors_give_the_float64_values():
    logits = torch.tensor([-1e30, -1e4, -100, -20, 0, 20, 100, 1e4, 1e30]).view(9, 1).repeat(1, 784)
    pairs = itertools.product([0.0, -1e4, 1e15], [-1e4, -100.0, -20.0, 0.0, 20.0, 88.0])
    posteriors = torch.tensor([[mean, mean, variance, variance] for mean, variance in pairs])
    zeros = torch.zeros(9, 784, dtype=torch.uint8)
    for function, x in (
        (lambda x: functional.bernoulli_nll(x, zeros), logits),
        (lambda x: functional.bernoulli_nll(x, zeros + 1), logits),
        (functional.gaussian_kl, posteriors),
    ):
        torch.testing.assert_close(function(x), function(x.double()), rtol=1e-5, atol=1e-4)


def test_adam_makes_the_steps_of_torch_1_1():
    """m / (sqrt(v) + eps) scaled by sqrt(1 - b2^t) / (1 - b1^t), in float64."""
    layer = exact.nn.Linear(7, 5)
    adam = exact.optim.Adam(layer.parameters(), lr=0.01, betas=(0.8, 0.99), eps=1e-3)
    values, m, v = [p.detach().double() for p in layer.parameters()], [0.0, 0.0], [0.0, 0.0]
    for step in range(1, 6):
        for number, parameter in enumerate(layer.parameters()):
            parameter.grad = normal(*parameter.shape, seed=step)  # laid out in another order
            gradient = parameter.grad.double()
            m[number] = 0.8 * m[number] + 0.2 * gradient
            v[number] = 0.99 * v[number] + 0.01 * gradient**2
            scale = math.sqrt(1 - 0.99**step) / (1 - 0.8**step)
            values[number] -= 0.01 * scale * m[number] / (v[number].sqrt() + 1e-3)
        adam.step()
        for found, expected in zip(layer.parameters(), values, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def test_adam_leaves_parameters_without_a_gradient_alone():
    """And counts the steps of each: one that joins late starts with step 1."""
    first, late, alone = (nn.Parameter(normal(5)) for _ in range(3))
    adam = exact.optim.Adam([{"params": [first]}, {"params": [late], "lr": 0.001}])
    only = exact.optim.Adam([alone])
    for step in range(3):
        first.grad = normal(5, seed=step)
        if step == 2:
            late.grad, alone.grad = normal(5, seed=7), normal(5, seed=7)
            only.step()
        adam.step()
        assert torch.equal(late, alone)


@pytest.mark.parametrize("architecture", POSTS, ids=str)
def test_nothing_that_the_post_computes_is_inexact(architecture, params):
    """A training step, evaluation, figures, scores, likelihood."""
    latent, settings = architecture.latent_size, params.train.model_copy(update={"batch_size": 64})
    model, (images, _) = model_of(architecture), work(100, latent)
    pixels, stream = images.numpy(), RandomStream(0, 64, 1, 1)
    grid = latent_grid(grid_axis(3, (0.1, 0.9))) if latent == 2 else None
    recorder = FrameRecorder(pixels[:1], 16, grid)
    adam = exact.optim.Adam(model.parameters())

    def everything() -> None:
        list(train(model, adam, images, stream.epoch(100, latent), settings))
        evaluate(model, images, stream.epoch(100, latent, frames=False))
        recorder.record(model, stream.frame(latent))
        anomaly_scores(model, pixels)
        reconstruct(model, pixels)
        log_likelihoods(model, pixels, 5, Generator(0))
        decomposition(model, pixels, Generator(0))
        units(model, pixels, 255 * pixels)

    assert exact.inexact_operations(everything) == []
    assert inexact_steps(Start(model, latent, images, images, stream), settings) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda y: y + y, set()),
        (lambda y: y + torch.arange(9).sum(), set()),  # of integers
        (torch.tanh, {"aten.tanh.default", "aten.tanh_backward.default"}),
        (lambda y: y @ y.t(), {"aten.mm.default"}),
        (lambda y: y - y.sum(dim=1, keepdim=True), {"aten.sum.dim_IntList"}),
        (lambda y: torch.add(y, y, alpha=3), {"aten.add.Tensor"}),
        (lambda y: y * torch.rand(784), {"aten.rand.default"}),
    ],
)
def test_the_guard_catches_what_ieee_754_does_not_decide(change, names):
    images, layer = work(8, 1)[0], exact.nn.Linear(784, 784)

    def step() -> None:
        y = change(layer(images))
        y.backward(y.detach())
        exact.optim.Adam(layer.parameters()).step()

    found = exact.inexact_operations(step)
    assert names <= set(found)
    assert names or not found
