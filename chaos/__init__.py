"""`make chaos`: jobs on the embedded stack while a seeded script breaks everything under them.

A developer's tool beside the product (docs/chaos.md): it speaks to the stack over HTTP as a user
does, breaks processes as an operator's bad day does, and then reads the database and the folders.
"""
