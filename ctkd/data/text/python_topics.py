"""The topics of Python's help: 0.5 MB of English prose that comes with Python."""

from collections.abc import Sequence

from ctkd.data.text.documents import Document
from ctkd.data.text.text_dataset import TextDataset
from ctkd.errors import DataError
from ctkd.registry import DATASETS


@DATASETS.register("python_topics")
class PythonTopics(TextDataset):
    """The language reference in `pydoc_data.topics`: one document per topic.

    The text differs between versions of Python, so compare runs of one version only.
    """

    owner = "python_topics"

    def __init__(
        self,
        context: int = 128,
        tokenizer: str = "bytes",
        vocabulary: int = 1024,
        stride: int | None = None,
        test: float = 0.05,
        validation: float = 0.0,
    ) -> None:
        """Takes what `text_files` takes, without a folder."""
        super().__init__(context, tokenizer, vocabulary, stride, test, validation)

    def documents(self) -> Sequence[Document]:
        """See `TextDataset`."""
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(
                "this Python has no help topics (pydoc_data.topics): use "
                "Recipe.dataset = @text_files with text of your own"
            ) from error
        return [Document(name, text) for name, text in sorted(topics.items())]
