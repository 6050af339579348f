"""The report: figures, text, and one page that holds both."""
