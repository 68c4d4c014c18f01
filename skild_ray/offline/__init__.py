"""Stages 1 to 3 as Ray Train jobs: one loop, one small file a stage."""
