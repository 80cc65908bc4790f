"""Giving room back: what nothing refers to is collected, and what is only kept because somebody asked once makes way."""
