"""An epoch by PyTorch's own kernels, as this project trained until its arithmetic was exact.

The gradient is written out, since autograd's graph takes a sixth of an epoch on a CPU; Adam is one
call of PyTorch's fused kernel for all parameters, with PyTorch 1.1's epsilon. Frames are recorded
as `vae.frames` does.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae.data import binarize
from vae.frames import grid_axis, latent_grid
from vae.model import BernoulliVAE, Posterior, as_module, objective_terms
from vae.network import Network
from vae.params import Train
from vae.stream import RandomStream
from work import Work


def torch_way(work: Work) -> Callable[[], float]:
    """A contestant: an epoch of the library's draws, with a frame every tenth batch."""
    # Adam's moments of pixels that are never 1 become subnormal numbers, which cost a third.
    torch.set_flush_denormal(True)
    figures, settings = work.figures, work.settings
    stream = RandomStream(199, settings.batch_size, len(work.pictures), figures.interval)
    network = Network(work.architecture.encoder_sizes, work.architecture.decoder_sizes)
    stream.initialise(network)
    model = as_module(network)
    adam = Adam(model, settings)
    pictures = torch.from_numpy(binarize(work.pictures, 128)).float()
    images = torch.from_numpy(work.binary)
    grid = torch.empty(0, network.latent)
    if network.latent == 2:
        grid = torch.from_numpy(latent_grid(grid_axis(figures.grid_size, figures.grid_quantiles)))
    frames = []

    @torch.no_grad()
    def record(noise: Tensor) -> None:
        latent = torch.cat((model.encode(pictures).sample(noise), grid))
        levels = torch.sigmoid(model.decode(latent)) * (figures.gray_levels - 1)
        frames.append(levels.round().to(torch.uint8))

    def epoch() -> float:
        record(torch.from_numpy(stream.frame(network.latent)))
        draws = stream.epoch(len(images), network.latent)
        order, noise, frame_noise = map(torch.from_numpy, draws)
        terms = torch.empty(2, len(images))
        starts = range(0, len(images), settings.batch_size)
        for batch, first in enumerate(starts):
            rows = slice(first, first + settings.batch_size)
            terms[:, rows] = backward(model, images[order[rows]].float(), noise[rows])
            adam.step()
            if batch % figures.interval == 0:
                record(frame_noise[batch // figures.interval])
        return terms.double().sum(dim=0).mean().item()

    return epoch


@torch.no_grad()
def backward(model: BernoulliVAE, images: Tensor, noise: Tensor) -> Tensor:
    """Set each parameter's `grad` to the gradient of the batch's summed negative ELBO.

    Images are `(batch, 784)` of 0.0 and 1.0; noise `(batch, latent)` gives one posterior sample for
    each. Returns the batch's `objective_terms`, `(2, batch)`.
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
    return objective_terms(logits, posterior, images)


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


class Adam:
    """Adam (Kingma and Ba, 2015) in the "epsilon hat" form at the end of its section 2.

    The parameters and gradients of `model` become views of flat buffers.
    """

    def __init__(self, model: nn.Module, settings: Train) -> None:
        self.settings = settings
        self.steps, self.count = 0, torch.zeros(())  # the same, where the kernel reads it
        parameters = list(model.parameters())
        self.values = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.gradients, self.first, self.second = (torch.zeros_like(self.values) for _ in range(3))
        sizes = [parameter.numel() for parameter in parameters]
        views = zip(parameters, self.values.split(sizes), self.gradients.split(sizes), strict=True)
        for parameter, value, gradient in views:
            parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)

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
