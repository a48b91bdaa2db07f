"""What every other part stands on: errors, parameters, the project's folders, the store of results."""

from token_geometry.base.errors import InputError as InputError
from token_geometry.base.errors import one_of as one_of
