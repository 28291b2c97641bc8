"""What pictures are worth: samples for held-out conditions, judges, features, distances, and the results."""
