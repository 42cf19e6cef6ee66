"""Adapters for other libraries (docs/ecosystem.md), which users bring themselves.

They use the public client only, and each module imports its library when it is imported.
"""
