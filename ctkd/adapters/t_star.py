"""T* of a few rows: where the adversary of a running step wants to go."""

import math

from ctkd.distiller import Distiller
from ctkd.engine.diagnostics.fixed_game import FixedGame
from ctkd.engine.diagnostics.kinds import peak
from ctkd.engine.diagnostics.landscape import undisturbed
from ctkd.engine.task import Rows

LOW, HIGH, POINTS = 0.5, 40.0, 25  # 25 passes over the rows in float64


def t_star_of(distiller: Distiller, rows: Rows) -> float:
    """The maximizer of L(T) on the rows, between 0.5 and 40; an end where L rises or falls."""
    step = math.log(HIGH / LOW) / (POINTS - 1)
    grid = [LOW * math.exp(step * k) for k in range(POINTS)]
    with undisturbed(distiller):
        game = FixedGame(distiller, rows)
        return peak(grid, [game.loss(temperature) for temperature in grid])
