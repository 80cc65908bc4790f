"""The bridge to Rucio: releases as datasets (FORMAT.md section 14). Nothing outside this package imports `rucio`.

Rucio is a locator, never a root of trust: what comes by it is verified by its ids and by the signed catalog in the bundle.
"""
