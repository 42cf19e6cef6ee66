"""selftaught: turn unlabelled instructions into a judge (Self-Taught Evaluator as a service)."""

__version__ = "0.1.0"
