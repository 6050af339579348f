"""The science: data, exact arithmetic, random stream, training, frames, scores, likelihood."""
