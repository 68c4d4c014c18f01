"""Environments by name, what we expect of them, and the vector environment that steps several in lockstep."""

from skild_ray.envs.registry import make_env

__all__ = ["make_env"]
