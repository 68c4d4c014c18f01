"""`python -m skild_ray`, the same program as `skild-ray`."""

import sys

# Python puts the working directory first: a file `random.py` there would stand in for Python's own.
sys.path.append(sys.path.pop(0))

from skild_ray.cli import main

main()
