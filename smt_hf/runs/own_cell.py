"""A cell of one's own, as a command line or a config file names it."""

import importlib
import os
import sys


def use_cell(name: str) -> str:
    """Accept a registered cell name, or import `module:Class` (the current folder counts) and register it.

    Raises ValueError for a name that is neither.
    """
    from smt_hf.models.cells import CELLS, register_cell

    if name in CELLS:
        return name
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise ValueError(
            f"unknown cell {name!r}; choose one of {', '.join(CELLS)}, or give your own as module:Class."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        cell_class = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise ValueError(f"cell {name!r} cannot be imported: {error}.") from error
    except AttributeError as error:
        raise ValueError(
            f"module {module_name!r} has no class {class_name!r} (asked for by --cell)."
        ) from error
    register_cell(name, cell_class)
    return name
