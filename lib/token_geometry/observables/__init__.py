"""Observables: labelled wrappers over the kernels of geometry."""
