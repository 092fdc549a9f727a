"""How the bundled pocket models were trained, measured and described."""
