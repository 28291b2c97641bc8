"""Batches, learning rate, loop and checkpoints."""
