"""Two builds of the pipeline in scratch folders, compared."""
