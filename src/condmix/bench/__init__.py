"""`condmix bench`: our training step and our sampler beside other libraries', measured in one run.

    setting     what is measured, on what
    timing      rounds A B C A B C ..., medians and ratios
    gemm        what the machine can do: its rate of matrix products
    training    the contenders of the training step: ours, ours without one technique, the peers
    sampling    the contenders of guided sampling
    probe       one contender in a new process: parameters, FLOPs, peak memory
    loss        what the contenders have learnt from the same pictures
    record      the JSON file and the table

Only the command line imports this package. How to run it: benchmarks/README.md.
"""
