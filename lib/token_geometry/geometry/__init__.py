"""Observables of neighbor tables and hidden states: labelled wrappers over bare array kernels.

The kernels (`gride`, `overlap`, `similarity`) take and return arrays; the functions of
`labelled` take and return xarray objects with the names of the observables dataset.
"""
