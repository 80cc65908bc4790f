"""Archives that releases are taken in from: tars, compressed or behind a script, read where they are, never unpacked."""
