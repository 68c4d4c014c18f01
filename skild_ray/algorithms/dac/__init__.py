"""Discriminator-actor-critic (DAC): imitation over the environment's own actions, with a discriminator's reward."""
