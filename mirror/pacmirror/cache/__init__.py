"""The pull-through cache: packs that are fetched frame by frame while they are asked for, each frame once for all who wait."""
