"""Stage 4: reinforcement learning over skills, as RLlib algorithms."""
