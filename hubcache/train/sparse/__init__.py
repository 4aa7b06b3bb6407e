"""Sparse transfer: recipes, the actions they ask for, quantisation and distillation; not a trainer of its own.

The facts are facts/sparse.md; a submodule is imported by its name, since recipe/ runs without torch.
"""
