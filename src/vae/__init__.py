"""What the stage scripts share: model, objective, random stream, training loop, figures, tracking."""

import os

# MKL splits small matrix products by the number of threads, and the last bits differ with the split. Its
# strict reproducible mode does not, at the same speed here. MKL reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
