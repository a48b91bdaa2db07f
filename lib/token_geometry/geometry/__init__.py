"""Geometry: kernels that take and return arrays."""
