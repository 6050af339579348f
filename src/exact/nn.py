"""Layers: PyTorch's own, with the same parameters and state_dict, in exact arithmetic."""

from typing import Any

from torch import Tensor, nn

from exact import functional
from exact.tensors import empty


class Linear(nn.Linear):
    """`torch.nn.Linear` by `exact.functional.linear`, followed by a ReLU where `relu` is set.

    The weight `(out_features, in_features)` lies transposed in memory, as the product reads it.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, relu: bool = False
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.relu = relu
        weight = empty(in_features, out_features).t()
        self.weight = nn.Parameter(weight.copy_(self.weight.detach()))
        if bias:
            self.bias = nn.Parameter(empty(out_features).copy_(self.bias.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for `x` `(..., in_features)`, float32, or uint8 of zeros and ones."""
        return functional.linear(x, self.weight, self.bias, self.relu)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", relu=True" if self.relu else "")


class Sequential(nn.Sequential):
    """`torch.nn.Sequential` that computes linear layers and ReLUs in a row as one operation."""

    def forward(self, x: Tensor) -> Tensor:
        layers: list[tuple[Tensor, Tensor | None, bool]] = []
        for module in self:
            if type(module) is nn.ReLU and layers:
                layers[-1] = (*layers[-1][:2], True)
            elif isinstance(module, Linear):
                layers.append((module.weight, module.bias, module.relu))
            else:
                x, layers = module(functional.linears(x, layers)), []
        return functional.linears(x, layers)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` by `exact.functional.conv2d`, without groups, dilation or named padding."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_convolution(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for images `(batch, in_channels, height, width)` as `conv2d` does."""
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` by `exact.functional.conv_transpose2d`, with the same limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_convolution(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for `x` `(batch, in_channels, height, width)`."""
        steps = self.stride, self.padding, self.output_padding
        return functional.conv_transpose2d(x, self.weight, self.bias, *steps)


def _check_convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Raise ValueError unless a layer has one group, no dilation, and zeros as padding."""
    named = isinstance(layer.padding, str) or layer.padding_mode != "zeros"
    if layer.groups != 1 or layer.dilation != (1, 1) or named:
        raise ValueError(
            f"exact.nn.{type(layer).__name__} takes stride and padding as numbers or pairs; groups "
            "and dilation should be 1, padding_mode zeros"
        )
