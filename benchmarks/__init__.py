"""How fast the system is, each benchmark one command; see the README."""

from skild_ray.log import show_lines

show_lines()
