"""Processes, arithmetic, seeds, signals, messages."""
