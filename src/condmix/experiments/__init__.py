"""A grid of experiments: its runs, their statistics, what they show."""
