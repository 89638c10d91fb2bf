"""ctkd: knowledge distillation with a learned temperature (CTKD, arXiv 2211.16231)."""

from typing import TYPE_CHECKING

from ctkd.lazy import lazy_names

if TYPE_CHECKING:
    from ctkd.distiller import Distiller

__version__ = "0.1.0"
__all__ = ["Distiller", "__version__"]
__getattr__ = lazy_names(__name__, {"Distiller": "ctkd.distiller"})
