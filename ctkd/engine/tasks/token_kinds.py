"""The kinds of tokens for the landscape: part of speech, frequency, first or later piece."""

import torch
from torch import Tensor

from ctkd.data.text.text_dataset import TextDataset
from ctkd.data.text.windows import Windows
from ctkd.engine.task import Kind

DECILES = tuple(f"decile {n}" for n in range(1, 11))  # the first has the most frequent tokens


def token_kinds(dataset: TextDataset, windows: Windows, chosen: Tensor) -> dict[str, Kind]:
    """The kinds of the tokens that the rows of the chosen windows predict."""
    stream = windows.stream
    targets = windows.of_targets(stream.ids, chosen)
    later = windows.of_targets(stream.later, chosen).long()
    deciles = frequency_deciles(stream.ids, dataset.num_classes)
    kinds = {
        "frequency": Kind(deciles[targets], DECILES),
        "piece of a word": Kind(later, ("first", "later")),
    }
    if dataset.tag_names:
        tags = windows.of_targets(stream.tags, chosen)
        kinds["part of speech"] = Kind(tags, tuple(dataset.tag_names))
    return kinds


def frequency_deciles(ids: Tensor, vocabulary: int) -> Tensor:
    """[vocabulary], 0 for the most frequent tokens, a tenth of the text, to 9."""
    counts = torch.bincount(ids, minlength=vocabulary).double()
    order = counts.argsort(descending=True, stable=True)
    before = counts[order].cumsum(0) - counts[order]
    deciles = torch.empty(vocabulary, dtype=torch.int64)
    deciles[order] = (10 * before / counts.sum()).long().clamp(max=9)
    return deciles
