"""The four services: api, generator, trainer, evaluator. They share only the package selftaught."""
