"""The Franka kitchen."""
