"""The name of before, until every caller takes `known_shape` of a source."""

from token_geometry.models.gguf.header import read as read
