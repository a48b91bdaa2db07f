"""The name of before, until every caller takes `devices`."""

from token_geometry.models.devices import device_map as device_map
from token_geometry.models.devices import devices as devices
