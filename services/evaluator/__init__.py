"""The evaluator: scores versions, decides promotion, serves /judge."""
