"""What training minimises: negative_elbo = reconstruction + kl, in nats per image."""

from torch import Tensor

import exact


def loss_function(
    logits: Tensor, images: Tensor, kl: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return a batch's summed loss, and the reconstruction loss of each image.

    `logits` and `images` are `(batch, 784)`, `kl` `(batch,)` nats. The reconstruction loss, -log
    p(x | z), is the binary cross-entropy summed over the pixels, `(batch,)` nats. The loss is the
    sum over the batch of reconstruction + `beta` kl: Kingma and Welling, Auto-Encoding Variational
    Bayes (2014), equation 10; beta as of Higgins and others, beta-VAE (2017).
    """
    reconstruction = exact.functional.bernoulli_nll(logits, images)
    return exact.functional.weighted_sum((reconstruction, kl), (1.0, beta)), reconstruction
