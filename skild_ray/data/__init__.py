"""Trajectories in files and in memory, and windows drawn from them."""
