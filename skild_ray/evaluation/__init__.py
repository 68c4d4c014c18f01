"""Rollouts of finished policies, and their statistics."""
