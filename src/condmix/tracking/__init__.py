"""MLflow: what is recorded of a run, and how it gets there."""
