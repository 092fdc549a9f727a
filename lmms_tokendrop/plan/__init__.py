"""What a variant leaves and costs, worked out from a configuration; the command ``lmms-tokendrop plan``."""
