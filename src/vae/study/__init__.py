"""Many trials of the same training, on this machine's cores or a Ray cluster."""
