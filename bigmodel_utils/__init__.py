"""Device-aware training, compression, explanation and release standards for Keras 3 models.

The library behind the book *Large Models in Practice: Industrial-Grade Standards and Best
Practices*. Import the module you need, for example ``from bigmodel_utils import training``:
this package imports nothing by itself, so that a part which does not need TensorFlow never
loads it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bigmodel_utils")
except PackageNotFoundError:  # the source tree on a path, not installed
    __version__ = "0+unknown"
