"""Pacballs: a release as one self-installing file, a shell stub and a tar (FORMAT.md section 12)."""
