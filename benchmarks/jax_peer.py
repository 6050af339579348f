"""The same epoch in JAX: one jitted function, `scan` over the batches, images resident, fp32."""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import jax
import numpy as np
from jax import numpy as jnp

from vae.params import Model, Train
from work import Work


def jax_epoch(work: Work, weights: dict | None = None) -> Callable[[], float]:
    """A contestant. The first call compiles; that belongs to the preparation, not to the epoch.

    `weights` to start from are pairs `(inputs, outputs)` and `(outputs,)`; drawn when not given.
    """
    images = jnp.asarray(work.binary)
    generator = np.random.default_rng(199)
    weights = weights or _map_sizes(partial(_layer, generator), work.architecture)
    state = (weights, jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights))
    epoch = _compiled(len(images), work.architecture, work.settings)
    return lambda: float(epoch(state, images, jax.random.key(199))[1])


def _map_sizes(make: Callable, architecture: Model) -> dict:
    """`make(inputs, outputs)` of each layer, by part of the model."""
    hidden, latent = architecture.hidden_sizes, architecture.latent_size
    back = (
        hidden[::-1]
        if architecture.decoder_hidden_sizes is None
        else architecture.decoder_hidden_sizes
    )
    chains = {"encoder": (784, *hidden, 2 * latent), "decoder": (latent, *back, 784)}
    return {part: [make(*size) for size in pairwise(sizes)] for part, sizes in chains.items()}


def _layer(
    generator: np.random.Generator, inputs: int, outputs: int
) -> tuple[jax.Array, jax.Array]:
    """Weights `(inputs, outputs)` and biases, uniform in +-1/sqrt(inputs) as torch's."""
    shapes, bound = ((inputs, outputs), (outputs,)), inputs**-0.5
    return tuple(
        jnp.asarray(generator.uniform(-bound, bound, shape), jnp.float32) for shape in shapes
    )


def negative_elbo(weights: dict, images: jax.Array, noise: jax.Array) -> jax.Array:
    """Summed over the batch; images `(batch, 784)` of 0.0 and 1.0, noise `(batch, latent)`."""
    mean, log_variance = jnp.split(_apply(weights["encoder"], images), 2, axis=1)
    logits = _apply(weights["decoder"], mean + jnp.exp(0.5 * log_variance) * noise)
    # log(1 + exp(logit)) - x logit is the binary cross-entropy.
    reconstruction = jnp.sum(jax.nn.softplus(logits) - images * logits)
    return reconstruction - 0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))


def _apply(layers: list, values: jax.Array) -> jax.Array:
    *hidden, (last_weight, last_bias) = layers
    for weight, bias in hidden:
        values = jax.nn.relu(values @ weight + bias)
    return values @ last_weight + last_bias


@cache
def _compiled(images: int, architecture: Model, settings: Train) -> Callable:
    b1, b2 = settings.adam_betas
    size = settings.batch_size
    full = images // size

    def epoch(state: tuple, data: jax.Array, key: jax.Array) -> tuple:
        order_key, noise_key = jax.random.split(key)
        order = jax.random.permutation(order_key, images)
        noise = jax.random.normal(noise_key, (images, architecture.latent_size))

        def step(state: tuple, batch: tuple) -> tuple:
            number, rows, noise = batch
            weights, first, second = state
            batch_images = data[rows].astype(jnp.float32)
            loss, gradient = jax.value_and_grad(negative_elbo)(weights, batch_images, noise)
            first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradient)
            second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, gradient)
            rate = settings.learning_rate / (1 - b1**number)
            correction = 1 / jnp.sqrt(1 - b2**number)
            weights = jax.tree.map(
                lambda w, m, v: w - rate * m / (jnp.sqrt(v) * correction + settings.adam_epsilon),
                weights,
                first,
                second,
            )
            return (weights, first, second), loss

        cut = full * size
        numbers = jnp.arange(1.0, full + 1)
        batches = (numbers, order[:cut].reshape(full, size), noise[:cut].reshape(full, size, -1))
        state, losses = jax.lax.scan(step, state, batches)
        total = losses.sum()
        if cut < images:  # the last batch is smaller
            state, loss = step(state, (full + 1.0, order[cut:], noise[cut:]))
            total += loss
        return state, total / images

    weights = _map_sizes(
        lambda inputs, outputs: (jnp.zeros((inputs, outputs)), jnp.zeros(outputs)), architecture
    )
    data = jnp.zeros((images, 784), jnp.uint8)
    return jax.jit(epoch).lower((weights, weights, weights), data, jax.random.key(0)).compile()
