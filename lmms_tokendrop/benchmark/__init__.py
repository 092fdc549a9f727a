"""Measurements: the quickstart's comparison table and the calibration of thresholds."""
