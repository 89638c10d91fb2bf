"""The game in the training loops of other packages: transformers, trl, lightning.

Nothing else of ctkd imports this folder, and a module of it imports the package that it adapts.
"""
