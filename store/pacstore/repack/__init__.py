"""Repacking, at the origin: what is alive in packs that are mostly dead is copied into new ones, so that the old ones can go."""
