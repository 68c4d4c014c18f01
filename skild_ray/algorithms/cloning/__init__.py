"""Behavioural cloning of actions and of skills: policies of an offline stage, evaluated as they are."""
