"""Adam in exact arithmetic."""

import math
from array import array
from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from exact.library import library
from exact.tensors import computed_here


class Adam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, 2015) in the "epsilon hat" form at the end of its section 2.

    `eps` is added to the square root of the second moment before its bias correction, as PyTorch
    1.1 did: `torch.optim.Adam` with eps / sqrt(1 - beta2^step) at each step makes the same steps.
    Moments that would be subnormal numbers are 0.
    """

    # PyTorch's decorator of these would import its compiler, which takes a second and is not used.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to 0."""
        for group in self.param_groups:
            for parameter in group["params"]:
                old = parameter.grad
                parameter.grad = None if set_to_none or old is None else torch.zeros_like(old)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Make one step for every parameter that has a gradient; return the closure's loss."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rows = []
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(parameter))
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                gradient = _laid_out_as(parameter, gradient)
                moments = state["exp_avg"], state["exp_avg_sq"]
                rows.append((parameter, gradient, *moments, state["step"]))
            if rows:
                update = _exact_step if all(computed_here(row[0]) for row in rows) else _torch_step
                update(rows, group["lr"], *group["betas"], group["eps"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        for parameter, state in self.state.items():
            state["step"] = int(state["step"])
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = _laid_out_as(parameter, state[name])


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor with a parameter's order in memory: the tensor itself or a copy."""
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


def _exact_step(rows: list[tuple], lr: float, beta1: float, beta2: float, eps: float) -> None:
    table = array("q")  # `struct Values` in exact.c
    for *tensors, step in rows:
        table.extend(tensor.data_ptr() for tensor in tensors)
        table.extend((tensors[0].numel(), step))
    library().adam(table.buffer_info()[0], len(rows), lr, beta1, beta2, eps)


def _torch_step(rows: list[tuple], lr: float, beta1: float, beta2: float, eps: float) -> None:
    values, gradients, first, second, steps = map(list, zip(*rows, strict=True))
    torch._foreach_lerp_(first, gradients, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
    roots = torch._foreach_sqrt(second)
    torch._foreach_add_(roots, eps)
    rates = [-lr * math.sqrt(1 - beta2**step) / (1 - beta1**step) for step in steps]
    torch._foreach_addcdiv_(values, first, roots, rates)
