"""Text files of a user: .txt, .md, .rst and JSON Lines, in a folder or one by one."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from ctkd.checks import expect
from ctkd.data.text.documents import Document
from ctkd.data.text.text_dataset import SuppliedText
from ctkd.errors import DataError
from ctkd.files import NotUTF8Error, read_text
from ctkd.registry import DATASETS

ENVIRONMENT = "CTKD_TEXT"
SUFFIXES = (".txt", ".md", ".rst", ".jsonl")


@DATASETS.register("text_files", runtime=("data_dir",))
class TextFiles(SuppliedText):
    """Each text file is a document; each line of a .jsonl file is one, too.

    Args:
        data_dir: a folder, searched with its subfolders, or one file; or the environment variable
            CTKD_TEXT.
        context: tokens of a window.
        tokenizer: "bytes"; "bpe", a byte-level BPE of `vocabulary` tokens that is trained once on
            the training documents; or the path of a `tokenizer.json`.
        stride: new tokens of a window in an evaluation; None for half of the context.
        test, validation: the shares of the documents for each; 0 for no validation.
        field, prompt_field: the keys of a JSON line that hold the text, and a prompt that precedes
            it and is not predicted (None for no prompt).
        separator: the text between two documents of one file; None for one document a file.
    """

    owner = "text_files"
    environment = ENVIRONMENT

    def __init__(
        self,
        data_dir: str | None = None,
        context: int = 128,
        tokenizer: str = "bytes",
        vocabulary: int = 4096,
        stride: int | None = None,
        test: float = 0.05,
        validation: float = 0.0,
        field: str = "text",
        prompt_field: str | None = None,
        separator: str | None = None,
    ) -> None:
        """Reads nothing yet. Raises ConfigError for a value out of range."""
        super().__init__(context, tokenizer, vocabulary, stride, test, validation)
        fine = separator is None or len(separator) > 0
        expect(fine, self.owner, "separator", separator, "None or the text between two documents")
        self.data_dir, self._field, self._prompt = data_dir, field, prompt_field
        self._separator = separator

    def documents(self) -> Sequence[Document]:
        """See `TextDataset`."""
        path = self.path
        if path is None:
            raise DataError(
                "no text was given: set the macro data_dir to a folder or a file, "
                "--gin_param \"data_dir = '/path/to/texts'\", or the environment variable "
                f"{ENVIRONMENT}"
            )
        if not path.exists():
            raise DataError(f"{path}: no such file or folder of text")
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        known = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not known:
            raise DataError(f"{path} contains no text: expected files {', '.join(SUFFIXES)}")
        return [document for file in known for document in self._read(file) if document.text]

    def _read(self, file: pathlib.Path) -> Iterator[Document]:
        """The documents of one file."""
        try:
            text = read_text(file)
        except (OSError, NotUTF8Error) as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        if file.suffix.lower() == ".jsonl":
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield self._document(line, f"{file}, line {number}")
        elif self._separator is None:
            yield Document(str(file), text)
        else:
            for number, part in enumerate(text.split(self._separator), 1):
                yield Document(f"{file}, part {number}", part)

    def _document(self, line: str, name: str) -> Document:
        """The document of a JSON line."""
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{name} is not JSON: {error}") from error
        keys = [self._field, *([self._prompt] if self._prompt else [])]
        for key in keys:
            if not isinstance(value, dict) or not isinstance(value.get(key), str):
                raise DataError(f"{name}: expected an object with a text under {key!r}")
        prompt = value[self._prompt] if self._prompt else ""
        return Document(name, prompt + value[self._field], prompt=len(prompt))
