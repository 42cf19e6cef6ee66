"""Runs on a GPU node: starts, watches, restarts and stops the vLLM servers that are wanted."""
