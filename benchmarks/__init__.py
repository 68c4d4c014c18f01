"""How fast the system is, each benchmark one command; see the README."""
