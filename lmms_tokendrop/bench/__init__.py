"""How fast variants are, what memory they take and what they compute, beside stock models, in one process."""
