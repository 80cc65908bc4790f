"""Exports: releases, and the signed catalog that names them, in one file or several volumes, for where no network leads.

`contents` is what an export says of itself, `layout` where each member lies in a volume, `volume` reads one as a Source,
`expected` knows what each member must be; `exporting` writes volumes, `judging` and `importing` take them into a store.
"""
