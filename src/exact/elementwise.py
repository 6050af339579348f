"""Functions of each element, and sums."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from exact.library import library
from exact.tensors import addresses, computed_here, computes, saved_tensors


def sigmoid(logits: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-logits)), in their shape."""
    return _Sigmoid.apply(logits) if computed_here(logits) else logits.sigmoid()


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor) -> Tensor:
        logits = logits.contiguous()
        shares = torch.empty_like(logits)
        library().sigmoid(*addresses(logits, shares), logits.numel())
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    def backward(ctx: Any, by_shares: Tensor) -> Tensor:
        (shares,) = saved_tensors(ctx)
        return by_shares * (shares * (1 - shares))


def exp(x: Tensor) -> Tensor:
    """Return exp(x), computed in float64; 0 below -700, infinite where float32's is."""
    return _Exp.apply(x.double()).to(x.dtype) if computes(x) else x.exp()


class _Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        y = _applied(library().exponentials, x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (y,) = saved_tensors(ctx)
        return by_y * y


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of normal positive numbers, computed in float64."""
    return _Log.apply(x.double()).to(x.dtype) if computes(x) else x.log()


class _Log(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _applied(library().logarithms, x)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        (x,) = saved_tensors(ctx)
        return by_y / x


def _applied(function: Callable[[int, int], None], x: Tensor) -> Tensor:
    """Return a copy of `x`, float64, in which a C function has replaced each element."""
    y = x.clone(memory_format=torch.contiguous_format)
    function(y.data_ptr(), y.numel())
    return y


def sum(x: Tensor) -> Tensor:
    """Return the sum over the first axis, one row after the other, in float64."""
    return _Sum.apply(x.double()) if computes(x) else x.double().sum(0)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous()
        sums = torch.empty(x.shape[1:], dtype=torch.float64)
        library().sum_over_rows(*addresses(x, sums), len(x), sums.numel())
        ctx.shape = x.shape
        return sums

    @staticmethod
    def backward(ctx: Any, by_sums: Tensor) -> Tensor:
        return by_sums.expand(ctx.shape)


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum over all elements of `terms`, each tensor times its weight, in float64."""
    if not all(computes(term) for term in terms):
        return torch.stack(
            [w * x.double().sum() for x, w in zip(terms, weights, strict=True)]
        ).sum()
    return _WeightedSum.apply(weights, *terms)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weights: Sequence[float], *terms: Tensor) -> Tensor:
        ctx.weights, ctx.shapes = weights, [term.shape for term in terms]
        terms = [term.double().contiguous() for term in terms]
        total, part = 0.0, torch.empty((), dtype=torch.float64)
        for weight, term in zip(weights, terms, strict=True):
            library().sum_over_rows(term.data_ptr(), part.data_ptr(), term.numel(), 1)
            total += weight * part.item()
        return part.fill_(total)

    @staticmethod
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor | None, ...]:
        saved_tensors(ctx)
        by = by_total.item()
        pairs = zip(ctx.shapes, ctx.weights, strict=True)
        return None, *(torch.full(shape, by * w, dtype=torch.float64) for shape, w in pairs)
