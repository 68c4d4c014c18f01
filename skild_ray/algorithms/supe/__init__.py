"""SUPE: RLPD over skills that explores by a bonus for novelty, with prior data that need no rewards."""
