"""Repair: damaged parts of a store are made good from what is left of them, from other stores, and from local trees.

Nothing is believed that was not compared with its digest, nothing good is removed, and whatever replaces a file does so
atomically: who reads the old one goes on reading it.
"""
