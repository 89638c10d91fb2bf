"""Files of other formats: each is named, with what to do; safetensors is read."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ctkd.models.weights.match import fingerprint, load_weights


def test_safetensors_are_read(state, tmp_path, network):
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    info = load_weights(network(seed=2), tmp_path / "model.safetensors")
    assert (info.fingerprint, info.container) == (fingerprint(state), "plain state dict")


def test_safetensors_are_known_by_their_contents(state, path, network):
    named = {f"module.{key}": tensor.half() for key, tensor in state.items()}
    save_file(named, path)  # weights.pth
    info = load_weights(network(seed=2), path)
    assert str(info) == f"{path} (plain state dict: module., stored as float16)"


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_safetensors_that_are_cut_short(kept, state, path, refusal):
    save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert f"{path} is cut short ({int(kept * len(content))} bytes)" in refusal(path)
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[: header // 2])
    assert f"{path} is cut short ({header // 2} bytes)" in refusal(path)


def test_a_checkpoint_that_is_called_a_tar_file(state, tmp_path, network):
    """Many projects call what torch.save writes checkpoint.pth.tar."""
    torch.save({"state_dict": state}, tmp_path / "checkpoint.pth.tar")
    info = load_weights(network(seed=2), tmp_path / "checkpoint.pth.tar")
    assert info.fingerprint == fingerprint(state)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_older_format_of_any_protocol(protocol, state, path, network):
    options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    torch.save(state, path, **options)
    assert load_weights(network(seed=2), path).fingerprint == fingerprint(state)


def packed(**files):
    """The bytes of a zip file of these members."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return made.getvalue()


def saved_array(**arrays):
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


FOREIGN = {
    "npz": (saved_array(w=np.zeros(3)), "is NumPy's .npz: save the arrays as tensors"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(64), "is a single NumPy array"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "is an HDF5 file, as Keras writes them"),
    "keras": (
        packed(**{"config.json": "{}", "model.weights.h5": "x"}),
        "is a Keras model: save the weights as PyTorch does",
    ),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(64), "is an ONNX model"),
    "other.onnx": (b"\x08\x09\x12\x05tf2ox" + bytes(64), "is an ONNX model"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "is a TensorFlow Lite model"),
    "gguf": (b"GGUF\x03" + bytes(64), "is a GGUF file"),
    "index.json": (json.dumps({"weight_map": {}}).encode(), "is a JSON text, not a checkpoint"),
    "pth.gz": (
        gzip.compress(b"weights" * 99),
        "is compressed with gzip, or a damaged archive: unpack",
    ),
    "pth.bz2": (bz2.compress(b"weights" * 99), "is compressed with bzip2"),
    "pth.xz": (lzma.compress(b"weights" * 99), "is compressed with xz"),
    "pth.zst": (b"\x28\xb5\x2f\xfd" + bytes(64), "is compressed with Zstandard"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(64), "is a 7-Zip archive: unpack it"),
    "rar": (b"Rar!\x1a\x07" + bytes(64), "is a RAR archive: unpack it"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is a web page"),
    "zeros": (bytes(4096), "is not a checkpoint, or a damaged one"),
    "pickle": (pickle.dumps({"w": [1.0]}, 2), "is not a checkpoint, or a damaged one"),
    "new.pickle": (pickle.dumps({"w": [1.0]}, 4), "is a pickle of protocol 4, which the safe"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", FOREIGN)
def test_a_file_of_another_format_is_named(suffix, tmp_path, refusal):
    content, message = FOREIGN[suffix]
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    assert f"{path} {message}" in refusal(path)


@pytest.mark.filterwarnings("ignore")
def test_programs_of_torch_are_named(path, refusal):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
        message = refusal(path)
    assert f"{path} is a TorchScript program" in message
    assert "torch.jit.load(path).state_dict()" in message


def test_a_program_of_torch_export_is_named(path, refusal):
    """Its zip file, without the seconds that exporting takes."""
    members = {"m__archive_format": "pt2", "m__models__model.json": "{}", "m__byteorder": "little"}
    path.write_bytes(packed(**members))
    assert f"{path} is a program of torch.export" in refusal(path)


# Folders


def test_a_folder_lists_the_weights_in_it(state, tmp_path, refusal):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "run" / "student_last.pt")
    save_file(state, tmp_path / "run" / "checkpoints" / "model.safetensors")
    (tmp_path / "run" / "config.gin").write_text("seed = 1")
    lines = refusal(tmp_path / "run", setting="teacher_weights").splitlines()
    assert lines == [
        f"the file of weights {tmp_path}/run is a folder. Give a file, for example:",
        f"  teacher_weights = '{tmp_path}/run/checkpoints/model.safetensors'",
        f"  teacher_weights = '{tmp_path}/run/student_last.pt'",
    ]


def test_a_folder_that_was_a_checkpoint(state, path, tmp_path, refusal):
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    assert "a checkpoint that was unpacked" in refusal(tmp_path / "weights")


def test_folders_of_other_formats(tmp_path, refusal):
    (tmp_path / "saved_model.pb").touch()
    assert "a model of TensorFlow" in refusal(tmp_path)
    (tmp_path / ".metadata").touch()
    (tmp_path / "__0_0.distcp").touch()
    assert f"format_utils dcp_to_torch {tmp_path} weights.pt" in refusal(tmp_path)
