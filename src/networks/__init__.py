"""Your own architectures: docs/own-experiment.md says how to write one."""
