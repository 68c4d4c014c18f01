"""The point maze."""
