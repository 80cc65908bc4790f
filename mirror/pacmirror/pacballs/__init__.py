"""Pacballs and files of releases over HTTP: put together from packs while they are sent."""
