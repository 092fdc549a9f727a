"""Tables of results files; nothing is measured here."""
