"""The names of before, until every caller takes `sources`, `loading` and `devices`."""

from token_geometry.models import devices, loading, source, sources

choose_device = devices.choose_device
ModelSource, aliases, resolve = source.ModelSource, sources.aliases, sources.resolve
DTYPES, load_config, load_tokenizer = loading.DTYPES, loading.load_config, loading.load_tokenizer
load_model, is_whole = loading.load_model, loading.is_whole
check_length, needs_bos = loading.check_length, loading.needs_bos


def _method(name):
    return lambda source: getattr(source, name)()


check_files, local_directory = _method("check_files"), _method("directory")
is_dequantized, at_commit, readable_errors = map(_method, ("is_made", "at_commit", "readable_errors"))
