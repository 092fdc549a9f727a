"""Tests of the extra `demo`, which is not in the lock: `.ci/run` runs them in an environment of its own."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("gradio") else ["test_*.py"]
