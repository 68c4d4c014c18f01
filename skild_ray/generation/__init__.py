"""Data that demonstrators make: collected, stored under names, described."""
