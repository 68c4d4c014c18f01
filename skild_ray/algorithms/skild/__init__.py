"""SkiLD: a policy over learned skills, guided by prior and posterior."""
