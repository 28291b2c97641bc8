"""Malformed inputs by the hundred: what condmix answers to each (a developer's tool: `make malformed`).

worlds.py makes finished tiny projects, damage.py damages a file of a copy, tables/ say which command then reads it
and what the right answer is, runner.py runs the cases and gives each a verdict.
"""
