"""The published numbers: their tables, the intervals they are judged by, and the verdicts."""
