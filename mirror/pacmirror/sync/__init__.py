"""Sync: a mirror brings the releases that it subscribes to whole, keeps them so, and lets go of what it should no longer have."""
