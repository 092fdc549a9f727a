"""What `scripts/measure_gpu.py` measures, in which order, and how long it takes."""
