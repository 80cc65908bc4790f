"""Publishing to an origin elsewhere: what it lacks is packed here and sent, and the line's part of the catalog signed here."""
