"""The office desk."""
