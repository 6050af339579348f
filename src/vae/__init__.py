"""The science: data, model and objective, arithmetic, random stream, training, frames, scores,
likelihood.

Its one effect at import is what the arithmetic needs to be set before torch is imported.
"""

import os

# MKL splits small matrix products by the number of threads, and the last bits differ with the
# split. Its strict reproducible mode does not, at the same speed here. MKL reads this at its first
# product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
