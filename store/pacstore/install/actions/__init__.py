"""A release's own commands: run before the switch, held to what they declare, and run again to validate."""
