"""Scripts that build, execute and judge the book; run them as ``python -m tools.NAME``."""
