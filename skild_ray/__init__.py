"""SkiLD, demonstration-guided reinforcement learning with learned skills, as a distributed system on Ray."""
