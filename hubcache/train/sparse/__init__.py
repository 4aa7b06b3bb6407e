"""Sparse transfer: recipes, the actions they ask for, quantisation and distillation; not a trainer of its own.

A submodule is imported by its name, since recipe/ runs without torch.
"""
