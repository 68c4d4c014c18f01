"""Torch modules and their losses. Nothing here knows Ray or an environment."""
