"""Adam as PyTorch 1.1 had it, in one kernel call for all parameters."""

import math

from vae.params import Train

import torch
from torch import nn


class Adam:
    """Adam (Kingma and Ba, 2015) in the "epsilon hat" form at the end of its section 2.

    PyTorch 1.1 added epsilon to the root of the second moment before correcting its bias; today's
    adds it after, which moves the author's first epoch by 0.05 nats.

    The parameters and gradients of `model` become views of flat buffers. `step` calls the fused
    kernel of torch.optim.Adam, which itself would take seconds to import PyTorch's compiler.
    """

    def __init__(self, model: nn.Module, settings: Train) -> None:
        self.settings = settings
        self.steps = 0
        parameters = list(model.parameters())
        self.values = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.gradients, self.first, self.second = (torch.zeros_like(self.values) for _ in range(3))
        self.count = torch.zeros(
            (), device=self.values.device
        )  # self.steps, where the kernel reads it
        sizes = [parameter.numel() for parameter in parameters]
        views = zip(parameters, self.values.split(sizes), self.gradients.split(sizes), strict=True)
        for parameter, value, gradient in views:
            parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on, the parameters included."""
        return {
            "values": self.values,
            "first": self.first,
            "second": self.second,
            "count": self.count,
        }

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.steps = int(self.count)

    def step(self) -> None:
        """Update the parameters by their gradients."""
        self.steps += 1
        self.count += 1
        beta1, beta2 = self.settings.adam_betas
        torch._fused_adam_(
            [self.values],
            [self.gradients],
            [self.first],
            [self.second],
            [],
            [self.count],
            lr=self.settings.learning_rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            # Today's epsilon that gives 1.1's update at this step.
            eps=self.settings.adam_epsilon / math.sqrt(1 - beta2**self.steps),
            amsgrad=False,
            maximize=False,
        )
