"""An install root: its layout, what is kept in it beside the trees, and the attempts that are made in it."""
