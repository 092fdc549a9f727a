"""Repositories for the model hub: export, self-check, model card, push."""
