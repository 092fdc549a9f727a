"""Methods beside each other on a task at equal average tokens: what is run, how it is run, and the report."""
