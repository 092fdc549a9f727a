"""The lmms-eval side: registered variants and the adapter that runs them."""
