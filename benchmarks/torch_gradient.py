"""The gradient of the negative ELBO, written out.

Autograd gives the same; but its graph, and the new tensor that it makes of every gradient in every
step, take a sixth of an epoch's time on a CPU.
"""

from vae import objective
from vae.model import BernoulliVAE, Posterior

import torch
from torch import Tensor, nn


@torch.no_grad()
def backward(model: BernoulliVAE, images: Tensor, noise: Tensor) -> Tensor:
    """Set each parameter's `grad` to the gradient of the batch's summed negative ELBO.

    Images are `(batch, 784)` of 0.0 and 1.0; noise `(batch, latent)` gives one posterior sample for
    each. Returns the batch's `objective.terms`, `(2, batch)`.
    """
    encoded = _values(model.encoder, images)
    mean, log_variance = posterior = Posterior(*encoded[-1].chunk(2, dim=1))
    *_, logits = decoded = _values(model.decoder, posterior.sample(noise))

    through_latent = _back(model.decoder, decoded, torch.sigmoid(logits).sub_(images))
    through_mean = through_latent + mean
    through_log_variance = 0.5 * (
        through_latent * noise * torch.exp(0.5 * log_variance) + torch.exp(log_variance) - 1
    )
    through_posterior = torch.cat((through_mean, through_log_variance), dim=1)
    _back(model.encoder, encoded, through_posterior, to_first=False)  # the images need no gradient
    return objective.terms(logits, posterior, images)


def _values(layers: nn.Sequential, inputs: Tensor) -> list[Tensor]:
    """The inputs, and what comes out of each layer."""
    values = [inputs]
    for layer in layers:
        values.append(layer(values[-1]))
    return values


def _back(
    layers: nn.Sequential, values: list[Tensor], gradient: Tensor, to_first: bool = True
) -> Tensor:
    """Set the layers' gradients, from the gradient by the last of `values`; return that by the
    first."""
    for layer, inputs, outputs in zip(layers[::-1], values[-2::-1], values[:0:-1], strict=True):
        if isinstance(layer, nn.ReLU):
            gradient = gradient.mul_(outputs.sign())
        else:
            _set(layer, inputs, gradient)
            if to_first or inputs is not values[0]:
                gradient = gradient @ layer.weight
    return gradient


def _set(layer: nn.Linear, inputs: Tensor, gradient: Tensor) -> None:
    """Set the gradients of a layer from that by its outputs."""
    torch.mm(gradient.T, inputs, out=layer.weight.grad)
    torch.sum(gradient, dim=0, out=layer.bias.grad)
