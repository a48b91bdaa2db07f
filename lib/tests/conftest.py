"""How the tests run: which of them need a model, and what each process of pytest imports."""

import os

import pytest

OF_A_MODEL = {
    "smollm2", "smollm2_gguf", "gemma3", "tokenizer", "tokenizers", "readings", "clouds", "structured", "shuffled",
    "calibrated", "live_dadapy", "sotu",
}  # fmt: skip
"""Fixtures that need what is downloaded; a test that takes one is marked `model`."""

OF_A_BOOK = {"built"}
"""Fixtures that render a book, in seconds; a test that takes one is marked `slow`."""


def pytest_configure(config):
    """Load the shared fixtures, and with them torch, where tests run: not in the process that hands them out."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core has a process of its own
    if hasattr(config, "workerinput") or config.getoption("dist") == "no":
        config.pluginmanager.import_plugin("shared")


def pytest_collection_modifyitems(items):
    # side by side, so that one process has them all
    items.sort(key=lambda item: "readings" not in item.fixturenames)
    for item in items:
        if not OF_A_MODEL.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.model)
        if not OF_A_BOOK.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)
