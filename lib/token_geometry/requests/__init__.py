"""Requests: what notebooks take as parameters, checked and resolved at the door; no engine, no torch."""
