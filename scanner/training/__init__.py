"""Pictures in, checkpoint and numbers out: forge, data, losses, train, evaluate.

A leaf: production code never imports it.
"""
