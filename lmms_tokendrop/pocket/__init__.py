"""Small trained models that ship with the package, and the generated scenes they answer questions about."""
