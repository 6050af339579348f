"""scikit-learn's digits in MNIST's size: real images that need no network."""

from vae.data import IMAGE_SIDE

import numpy as np


def upscaled_digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images `(images, 28, 28)` of gray values 0.0 to 255.0, scaled up from 8 x 8, and labels."""
    # Seconds to import, and few need it.
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 8 pixels become 24, with MNIST's margin around; 16 levels become 256.
    enlarged = np.stack([zoom(image, 3, order=1, grid_mode=True, mode="nearest") for image in digits.images])
    margin = (IMAGE_SIDE - enlarged.shape[1]) // 2
    pixels = (enlarged * 255 / 16).round().clip(0, 255)
    return np.pad(pixels, ((0, 0), (margin, margin), (margin, margin))), digits.target
