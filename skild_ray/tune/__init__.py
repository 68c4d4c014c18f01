"""Sweeps: many runs of one experiment with other settings, as Ray Tune trials that share what they can."""
