"""An endless, stateless stream of batches of images with alike shapes, for tasks that count steps.

One pass after another runs over the data; a step belongs to the pass `step // steps_per_pass`, so
that a run, whatever it calls an epoch, is taken up anywhere without what came before.
"""

import functools

import torch
from torch import Tensor

from ctkd.checks import expect
from ctkd.seeds import generator, seed_of

Item = tuple[int, int]


class AspectBatches:
    """Batches in which all images are wide, or all are tall, so that padding is small.

    In a pass the images are permuted by (seed, pass). A batch is full when so many of one shape
    have come; what is left over of both shapes at the end makes mixed batches, and of those the
    last, incomplete one is dropped: other images in every pass, fewer than a batch.
    """

    def __init__(self, wide: Tensor, batch_size: int, seed: int) -> None:
        """Takes whether each image is at least as wide as high, [n], bool.

        Raises:
            ConfigError: a batch is larger than the data set.
        """
        fine = batch_size <= len(wide)
        expect(
            fine, "Recipe", "batch_size", batch_size, f"at most the {len(wide)} images there are"
        )
        self._wide, self._size, self._seed = wide.tolist(), batch_size, seed
        self.steps_per_pass = len(wide) // batch_size
        # A step asks for its own pass only, and its neighbors for the same one.
        self._pass = functools.lru_cache(maxsize=2)(self._make)

    def items(self, step: int) -> list[Item]:
        """The (index, view) of each image of a step, counted from 0 over the whole run.

        A view is a number that depends on (seed, pass, index): its image's augmentation.
        """
        number, place = divmod(step, self.steps_per_pass)
        batch = self._pass(number)[place]
        return [(index, seed_of(self._seed, "view", number, index)) for index in batch]

    def _make(self, number: int) -> list[list[int]]:
        """The batches of a pass, in the order in which they become full."""
        order = torch.randperm(len(self._wide), generator=generator(self._seed, "order", number))
        waiting: dict[bool, list[int]] = {True: [], False: []}
        batches = []
        for index in order.tolist():
            alike = waiting[self._wide[index]]
            alike.append(index)
            if len(alike) == self._size:
                batches.append(alike.copy())
                alike.clear()
        rest = [*waiting[True], *waiting[False]]
        batches += [rest[k : k + self._size] for k in range(0, len(rest), self._size)]
        return batches[: self.steps_per_pass]
