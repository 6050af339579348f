"""The library, what people would use instead, and what the processor could do at best.

A contestant takes the work, prepares for it from fresh weights, and returns a function, which is
timed. That function returns the epoch's mean training loss in nats per image, if it trains.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import exact
from vae.data import binarize
from vae.frames import FrameRecorder, grid_axis, latent_grid
from vae.inference import kl_scores
from vae.model import VAE, build_model
from vae.stream import RandomStream
from vae.training import Start, choose_arithmetic, fit
from work import Work

Timed = Callable[[], float | None]


def fresh(work: Work, frame_pictures: int = 1) -> tuple[VAE, RandomStream]:
    """A model with the author's first weights, and the stream after them."""
    stream = RandomStream(199, work.settings.batch_size, frame_pictures, work.figures.interval)
    model = build_model(work.architecture)
    stream.initialise(model)
    return model, stream


def plain(work: Work) -> VAE:
    """The same model of torch.nn.Linear alone, laid out in memory as PyTorch does."""
    model = fresh(work)[0]
    for name, part in list(model.named_children()):
        layers = [
            nn.Linear(layer.in_features, layer.out_features)
            if isinstance(layer, nn.Linear)
            else layer
            for layer in part
        ]
        setattr(model, name, nn.Sequential(*layers))
        getattr(model, name).load_state_dict(part.state_dict())
    exact.set_arithmetic("torch")
    torch.set_num_threads(exact.default_threads())
    return model


def ours(work: Work) -> Timed:
    """An epoch of `vae.training.fit` with its draws, steps and a frame every tenth batch.

    `fit` ends an epoch with a pass over the test images, which the others lack: it gets one batch.
    """
    choose_arithmetic(work.settings)
    model, stream = fresh(work, len(work.pictures))
    figures, images = work.figures, torch.from_numpy(work.binary)
    latent, grid = work.architecture.latent_size, None
    if latent == 2:
        grid = latent_grid(grid_axis(figures.grid_size, figures.grid_quantiles))
    recorder = FrameRecorder(binarize(work.pictures, 128), figures.gray_levels, grid)
    start = Start(model, latent, images, images[: work.settings.batch_size], stream)
    epochs = fit(start, work.settings, recorder)
    return lambda: [epoch.train.negative_elbo for epoch in epochs][-1]


def torch_kernels(work: Work) -> Timed:
    """The same code with `train.arithmetic: torch`."""
    return ours(work._replace(settings=work.settings.model_copy(update={"arithmetic": "torch"})))


class Pictures(Dataset):
    """Images one by one, through a PIL image and `transform`, as torchvision's MNIST gives them."""

    def __init__(self, work: Work, transform: Callable) -> None:
        self.pixels, self.transform = torch.tensor(work.pixels), transform
        self.to_image = transforms.ToPILImage(mode="L")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.to_image(self.pixels[index]))


def post(work: Work) -> Timed:
    """The post's way: images rounded one by one, and a pass for each image and digit of figures."""
    to_tensor = transforms.Compose([transforms.ToTensor(), torch.round])
    pictures = torch.from_numpy(binarize(work.pictures, 128)).float()
    axis = grid_axis(work.figures.grid_size, work.figures.grid_quantiles)
    flat = work.architecture.latent_size == 2
    grid = torch.from_numpy(latent_grid(axis)) if flat else torch.empty(0, 2)

    @torch.no_grad()
    def draw(model: VAE) -> list:
        reconstructions = [_probabilities(model, picture[None])[0] for picture in pictures]
        manifold = [torch.sigmoid(model.decode(point[None])) for point in grid]
        return [image.reshape(28, 28).numpy() for image in reconstructions + manifold]

    return _data_loader_epoch(work, to_tensor, draw)


def examples(work: Work) -> Timed:
    """The form of pytorch/examples' vae: grey images one by one, no figures."""
    return _data_loader_epoch(work, transforms.ToTensor())


def _data_loader_epoch(work: Work, transform: Callable, draw: Callable | None = None) -> Timed:
    loader = DataLoader(
        Pictures(work, transform), batch_size=work.settings.batch_size, shuffle=True
    )
    torch.manual_seed(199)
    model = plain(work)
    adam = torch.optim.Adam(model.parameters(), lr=work.settings.learning_rate)

    def epoch() -> float:
        total = 0.0
        if draw:
            draw(model)
        for batch, images in enumerate(loader):
            images = images.view(-1, 784)
            adam.zero_grad()
            probabilities, mean, log_variance = _probabilities(model, images)
            reconstruction = binary_cross_entropy(probabilities, images, reduction="sum")
            divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = reconstruction + divergence
            loss.backward()
            total += loss.item()
            adam.step()
            if draw and batch % work.figures.interval == 0:
                draw(model)
        return total / len(work.pixels)

    return epoch


def _probabilities(model: VAE, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_variance = model.encode(images).chunk(2, dim=1)
    deviation = torch.exp(0.5 * log_variance)
    latent = mean + deviation * torch.randn_like(deviation)
    return torch.sigmoid(model.decode(latent)), mean, log_variance


def linear(work: Work) -> Timed:
    """The products of an epoch's steps by `exact.nn.Linear`, forward and backward, alone."""
    choose_arithmetic(work.settings)
    layers = [layer for layer in fresh(work)[0].modules() if isinstance(layer, nn.Linear)]
    images = torch.from_numpy(work.binary)
    batch_size = work.settings.batch_size
    inputs = [torch.rand(batch_size, layer.in_features) for layer in layers]
    by_outputs = [torch.rand(batch_size, layer.out_features) for layer in layers]

    def epoch() -> None:
        for batch in images.split(batch_size):
            for number, layer in enumerate(layers):
                # The images need no gradient.
                x = inputs[number][: len(batch)].requires_grad_() if number else batch
                wanted = [layer.weight, layer.bias, *([x] if number else [])]
                torch.autograd.grad(layer(x), wanted, by_outputs[number][: len(batch)])

    return epoch


def mm(work: Work) -> Timed:
    """The limit through torch's `mm`: the matrix products of an epoch's steps, and nothing else."""
    return _products(work, [torch.mm])


def best(work: Work) -> Timed:
    """The limit by whichever is faster for a shape: `mm` or oneDNN's product."""
    return _products(
        work, [torch.mm, _onednn] if torch.backends.mkldnn.is_available() else [torch.mm]
    )


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


def _products(work: Work, implementations: list[Callable]) -> Timed:
    steps, rest = divmod(len(work.pixels), work.settings.batch_size)
    model = plain(work)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def of_step(batch: int) -> list[tuple[Callable, Tensor, Tensor]]:
        products = []
        for number, layer in enumerate(layers):
            weight = layer.weight.detach()
            inputs, gradient = (
                torch.rand(batch, layer.in_features),
                torch.rand(batch, layer.out_features),
            )
            pairs = [(inputs, weight.t()), (gradient.t(), inputs), (gradient, weight)]
            # The images need no gradient.
            for left, right in pairs[: 3 if number else 2]:
                products.append((_fastest(implementations, left, right), left, right))
        return products

    batches = [of_step(work.settings.batch_size)] * steps + ([of_step(rest)] if rest else [])

    @torch.no_grad()
    def epoch() -> None:
        for products in batches:
            for product, left, right in products:
                product(left, right)

    return epoch


def _fastest(implementations: list[Callable], left: Tensor, right: Tensor) -> Callable:
    def seconds(product: Callable) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            product(left, right)
            times.append(time.perf_counter() - start)
        return min(times)

    return min(implementations, key=seconds) if len(implementations) > 1 else implementations[0]


def kl_ours(work: Work) -> Timed:
    """KL scores of all images by `vae.inference.kl_scores`."""
    choose_arithmetic(work.settings)
    model, images = fresh(work)[0], work.binary
    return lambda: kl_scores(model, images).mean()


def kl_torch(work: Work) -> Timed:
    """KL scores of all images by torch's kernels, 1,000 at a time."""
    model, images = plain(work), torch.from_numpy(work.binary)

    @torch.no_grad()
    def scores() -> float:
        parts = [
            exact.functional.gaussian_kl(model.encode(batch.float()))
            for batch in images.split(1000)
        ]
        return torch.cat(parts).mean().item()

    return scores


def kl_post(work: Work) -> Timed:
    """KL scores by one forward pass for each image."""
    model, images = plain(work), torch.from_numpy(work.binary).float()

    @torch.no_grad()
    def scores() -> float:
        posteriors = (model.encode(image[None]) for image in images)
        return sum(exact.functional.gaussian_kl(p).item() for p in posteriors) / len(images)

    return scores
