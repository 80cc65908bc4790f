"""What is done with installed releases: verified, repaired, rolled back, removed."""
