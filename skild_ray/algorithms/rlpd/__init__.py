"""Reinforcement learning with prior data (RLPD): SAC with an ensemble of critics and prior data in every batch."""
