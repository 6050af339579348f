"""MLflow, which mirrors DVC's files: only scripts import this package."""
