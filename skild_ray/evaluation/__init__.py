"""Rollouts of finished policies, their statistics, and the report."""
