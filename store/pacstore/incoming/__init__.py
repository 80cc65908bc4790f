"""What comes to a store from a publisher elsewhere: spooled, verified, placed, and committed, each as if it was made here."""
