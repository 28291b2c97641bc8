"""Euler's method in EDM's variables, x / sqrt(a_bar) and sigma (Karras et al. 2022, arXiv:2206.00364): it is DDIM.

A step x + (sigma_next - sigma) (x - x_0) / sigma = x_0 + sigma_next epsilon is DDIM's, divided by sqrt(a_bar_next). The
name is here for those who know it from k-diffusion and diffusers.
"""

from condmix.samplers.ddim import ddim as euler

__all__ = ["euler"]
