"""Trajectories: where they come from, how they lie in memory, and how windows are drawn from them."""
