"""What is kept, and for how long: backup and restore, deletion on request, retention, collection.

Rows go first, in a transaction, and files after it: what a crash in between leaves are files
without rows, and the next collection (:mod:`selftaught.keeping.collect`) removes those.
"""
