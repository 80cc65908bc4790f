"""Local trees as sources of chunks and whole files: found, verified as they are read, copied, cloned or linked."""
