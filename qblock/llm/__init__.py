"""From a language model to a smaller one: calibrate, choose, prune, measure.

Nothing here is imported by the core. Needs `pip install "qblock[llm]"`.
"""

import importlib.util

from qblock.errors import ModelError

for _module in ("torch", "transformers"):
    if importlib.util.find_spec(_module) is None:
        raise ModelError(f'{_module} is not installed: pip install "qblock[llm]"')
