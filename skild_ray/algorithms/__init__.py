"""Stage 4: off-policy reinforcement learning over skills or over actions, as RLlib algorithms.

One loop of sampling and learning (`off_policy`), configured by what an algorithm says of itself (`off_policy_config`,
`over_skills`, `demonstrated`, `experience`), and a folder an algorithm. `docs/add_an_algorithm.md` adds one.
"""
