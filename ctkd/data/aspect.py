"""An endless, stateless stream of batches of images with similar shapes, by step.

One pass over the data follows another; a step belongs to the pass `step // steps_per_pass`. So a
run can resume at any step, with epochs of any length, without a replay of earlier steps.
"""

import functools

import torch
from torch import Tensor

from ctkd.checks import expect
from ctkd.seeds import generator, seed_of

Item = tuple[int, int]


class AspectBatches:
    """Batches of images that are all wide or all tall, so that little padding is needed.

    In a pass the images are permuted by (seed, pass). A batch is full when it has `batch_size`
    images of one shape. At the end the remaining images of both shapes make mixed batches. The
    last, incomplete batch is dropped; its images differ from pass to pass.
    """

    def __init__(self, wide: Tensor, batch_size: int, seed: int) -> None:
        """Takes a tensor [n], bool: whether each image is at least as wide as high.

        Raises:
            ConfigError: a batch is larger than the data set.
        """
        fine = batch_size <= len(wide)
        expected = f"at most the number of training images, {len(wide)}"
        expect(fine, "Recipe", "batch_size", batch_size, expected)
        self._wide, self._size, self._seed = wide.tolist(), batch_size, seed
        self.steps_per_pass = len(wide) // batch_size
        # A step needs only its own pass, and neighboring steps need the same one.
        self._pass = functools.lru_cache(maxsize=2)(self._make)

    def items(self, step: int) -> list[Item]:
        """The (index, view) of each image of a step, counted from 0 over the whole run.

        A view is a number that depends on (seed, pass, index) and decides the augmentation.
        """
        number, step_of_pass = divmod(step, self.steps_per_pass)
        batch = self._pass(number)[step_of_pass]
        return [(index, seed_of(self._seed, "view", number, index)) for index in batch]

    def _make(self, number: int) -> list[list[int]]:
        """The batches of a pass, in the order in which they become full."""
        order = torch.randperm(len(self._wide), generator=generator(self._seed, "order", number))
        waiting: dict[bool, list[int]] = {True: [], False: []}
        batches = []
        for index in order.tolist():
            group = waiting[self._wide[index]]
            group.append(index)
            if len(group) == self._size:
                batches.append(group.copy())
                group.clear()
        rest = [*waiting[True], *waiting[False]]
        batches += [rest[k : k + self._size] for k in range(0, len(rest), self._size)]
        return batches[: self.steps_per_pass]
