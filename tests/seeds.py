"""Random moments and places that differ from round to round of `make test-faults`, and are the same in `make test`."""

import os
import random


def seeded(name: object) -> random.Random:
    """A generator for the test or place `name`."""
    return random.Random(f"{name} {os.environ.get('PACBALL_FAULT_ROUND', '')}")
