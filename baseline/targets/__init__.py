"""Compile and launch a variant: one module a target."""
