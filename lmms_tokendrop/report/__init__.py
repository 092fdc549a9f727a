"""Results files as one report: tables, pictures, a page."""
