"""The dictionary of cells. A new cell is one class and one `register_cell` call."""

from .cell_base import MemoryCell
from .cell_elman import ElmanCell
from .cell_gru import GRUCell
from .cell_lstm import LSTMCell
from .cell_mlp import MLPCell
from .cell_transformer import TransformerCell

CELLS: dict[str, type[MemoryCell]] = {
    "transformer": TransformerCell,
    "mlp": MLPCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "elman": ElmanCell,
}
BUILT_IN_CELLS = tuple(CELLS)


def register_cell(name: str, cell_class: type[MemoryCell]) -> None:
    """Make `cell_class` available as `SMTConfig(cell=name)`.

    Raises ValueError if the name is taken by another class, or the class is not a MemoryCell.
    """
    if not (isinstance(cell_class, type) and issubclass(cell_class, MemoryCell)):
        raise ValueError(f"cell {name!r} is {cell_class!r}; it must be a subclass of MemoryCell.")
    if CELLS.get(name, cell_class) is not cell_class:
        raise ValueError(f"cell {name!r} is already registered as {CELLS[name].__name__}; choose another name.")
    CELLS[name] = cell_class


def build_cell(config) -> MemoryCell:
    """The cell that `config.cell` names. Raises ValueError for a name that is not registered.

    A configuration may come from anybody, so a name is only looked up here, never imported.
    """
    if config.cell not in CELLS:
        hint = f" or --cell {config.cell}" if ":" in config.cell else ""
        raise ValueError(
            f"cell {config.cell!r} is not registered; choose one of {', '.join(CELLS)}, or add it first "
            f"with register_cell({config.cell!r}, YourCell){hint}."
        )
    return CELLS[config.cell](config)
