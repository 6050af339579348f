"""MLflow's copy of the results, which no stage reads: only scripts import this package.

It imports MLflow inside functions: that takes two seconds, which tracking turned off does not need.
"""
