"""Your own architectures: a file here with a class of it, named in params.yaml (docs/own-experiment.md)."""
