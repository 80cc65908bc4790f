"""What the installer asks of the trees on a disk: paths, directories held open, blocks shared, everything removed."""
