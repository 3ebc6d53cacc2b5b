"""Reads the weights in a file of any common format, without running anything in it.

Pickles are read only by torch's restricted unpickler. If it refuses a file that does contain
tensors, the error includes a command that extracts them.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
import re
import shlex
import sys
import textwrap
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clic.errors import ModelError

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "weights")
"""Entries under which training code stores a model's weights, next to its own state."""
PREFIXES = ("module.", "model.", "_orig_mod.")
"""Prefixes that DistributedDataParallel, Lightning and torch.compile add to every name."""
COMPILED = "_orig_mod."  # in the middle of a name, if only a part of the model is compiled
SIZES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives store among their tensors."""

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors or torch.save, under the model's own names.

    Wrappers (`{"state_dict": ...}`) and prefixes (`module.`, `_orig_mod.`) are removed at any
    depth.

    Raises:
        ModelError: The file contains no weights or more than weights, or is damaged.
    """
    return _plain(path, _content(path))


def convert(path: str | Path, out: str | Path) -> Path:
    """Extract the weights from a file that contains more than weights; return `out`, safetensors.

    No class or function named in the file is imported or called. Objects are read as their plain
    attributes, and the tensors of a whole model are found among those.

    Raises:
        ModelError: The file contains no weights, or `out` exists.
    """
    from safetensors.torch import save_file

    path, out = Path(path), Path(out)
    if out.exists():
        raise ModelError(f"{out} exists; choose another name")
    tensors = _plain(path, _inert(path))
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, out)
    return out


def check_numbers(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise a `ModelError` that names the first tensor with a NaN, if there is one."""
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    if not floating:
        return
    # A sum is NaN if any value is, and several times faster; it is also NaN for inf and -inf.
    doubtful = torch.stack([value.sum().isnan() for value in floating.values()]).tolist()
    for name, in_doubt in zip(floating, doubtful, strict=True):
        if in_doubt and bool(floating[name].isnan().any()):
            raise ModelError(
                f"tensor {name!r} of {where} holds NaN, so the model cannot compute anything; "
                "download the weights again, or use an earlier checkpoint"
            )


def _content(path: Path) -> Any:
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a weights file; name the folder as the model")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); use another file") from error
    _check_not_text(path, head)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _safetensors(path)
    if head.startswith(_ZIP):
        _check_archive(path)
    elif not head.startswith(_PICKLE):
        raise ModelError(
            f"{path} is not a weights file: neither safetensors nor written by torch.save; "
            "is it the right file, and complete?"
        )
    try:
        return _restricted(path)
    except Exception as error:  # on such bytes the unpickler may raise anything
        raise _not_read(path, error) from error


def _restricted(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd pickles; one that cannot be read is an error
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_not_text(path: Path, head: bytes) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        raise ModelError(f"{path} is empty; download it again")
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a git LFS pointer, not the weights; run `git lfs pull` in its repository"
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        raise ModelError(
            f"{path} is a web page, not weights; download the file itself (on the Hugging Face "
            "hub the link with /resolve/, not /blob/)"
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}): it is damaged or cut short, so the model could not "
            "be built; download it again"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse TorchScript, which is a program, and zip archives not written by torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or cut short ({error}); download it again") from error
    if "constants.pkl" in names:
        code = (
            "import torch; torch.save("
            f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict(), {_beside(path)!r})"
        )
        raise ModelError(
            f"{path} is a TorchScript archive: a program, which is not run here; if you trust "
            f"its origin, extract its weights with: {_command(code)}"
        )
    if "data.pkl" not in names:
        raise ModelError(f"{path} is a zip archive that torch.save did not write; unpack it first")


def _not_read(path: Path, error: Exception) -> ModelError:
    found = re.search(r"(?:WeightsUnpickler error:\s*|(?=Trying to load))([^\n]+)", str(error))
    reason = textwrap.shorten(found[1] if found else str(error), 120, placeholder=" ...")
    try:
        _plain(path, _inert(path))
    except ModelError:
        return ModelError(
            f"{path} cannot be read as weights ({reason}); if it is damaged, download it again; "
            "otherwise write torch.save(model.state_dict(), FILE) where it was made"
        )
    out = str(Path(_beside(path)).with_suffix(".safetensors"))
    code = f"from clic.models.weight_files import convert; print(convert({str(path)!r}, {out!r}))"
    return ModelError(
        f"{path} holds more than weights, and reading it could run foreign code; convert it "
        f"with this command, which does not: {_command(code)}"
    )


def _beside(path: Path) -> str:
    return str(path.with_name(f"{path.stem}-weights{path.suffix}"))


def _command(code: str) -> str:
    return f"{shlex.quote(sys.executable or 'python')} -c {shlex.quote(code)}"


class _Bare:
    """Stand-in for an object whose state is something other than attributes."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _stand_in(name: str) -> type:
    """Return a class that the unpickler accepts as `name` and that does nothing."""
    module, _, last = name.rpartition(".")
    if module.split(".")[0] in ("numpy", "functools"):
        return type(last, (_Bare,), {"__module__": module})
    # OrderedDict is the only type to which the unpickler adds both entries and attributes.
    made = {"__module__": module, "__new__": lambda cls, *arguments: OrderedDict()}
    return type(last, (), made)


def _inert(path: Path) -> Any:
    """Read a file of torch.save with a stand-in for every foreign class and function.

    torch's restricted unpickler looks at its own list first, so tensors are read normally.
    """
    try:
        names = set(_globals(path))
        with torch.serialization.safe_globals([_stand_in(name) for name in names]):
            return _restricted(path)
    except Exception as error:
        raise ModelError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _globals(path: Path) -> Iterator[str]:
    """Yield the name of each class and function in a file of torch.save, of either format."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(path):
            for _ in range(4):  # a magic number, a version, the machine, then the object
                yield from _named(file)
            return
    with zipfile.ZipFile(path) as archive:
        inner = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        yield from _named(archive.read(inner))


def _named(pickled: Any) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            # The unpickler also maps the names of Python 2.
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            yield f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def _plain(path: Path, content: Any) -> dict[str, Tensor]:
    """Remove wrappers and prefixes."""
    while isinstance(content, Mapping) and not _module_state(content):
        wrapper = next((name for name in WRAPPERS if _holds(content.get(name))), None)
        if wrapper is None:
            break
        content = content[wrapper]
    found = _module_state(content) or content
    if not isinstance(found, Mapping) or not found:
        what = "nothing" if isinstance(content, Mapping) else type(content).__name__
        raise ModelError(f"{path} holds {what} and not the weights of a model; use another file")
    foreign = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ModelError(
            f"{path}: its entry {foreign[0]!r} is not a tensor, and it has none of "
            f"{', '.join(WRAPPERS)}; save model.state_dict() alone"
        )
    return _renamed(path, {str(name): value for name, value in found.items()})


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping) and (bool(value) or bool(_module_state(value)))


def _renamed(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    kept = [name for name in tensors if name not in SIZES]
    plain = {name.replace(COMPILED, ""): tensors[name] for name in kept}
    if len(plain) < len(kept):
        raise ModelError(f"{path}: two tensors have the same name, with and without {COMPILED!r}")
    return plain


def _module_state(module: Any) -> dict[str, Tensor]:
    """Return the state dict of a model, even if it was read as plain attributes."""
    if isinstance(module, nn.Module):
        return module.state_dict()
    attributes = getattr(module, "__dict__", {})
    if "_parameters" not in attributes or "_modules" not in attributes:
        return {}
    hidden = attributes.get("_non_persistent_buffers_set") or ()
    found = {
        name: value
        for kind in ("_parameters", "_buffers")
        for name, value in (attributes.get(kind) or {}).items()
        if isinstance(value, Tensor) and name not in hidden
    }
    for name, child in attributes["_modules"].items():
        found.update({f"{name}.{inner}": value for inner, value in _module_state(child).items()})
    return found


def architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the architectures of open_clip whose tensors have these names and shapes."""
    import open_clip

    shapes = {name: value.shape for name, value in tensors.items()}
    embedding = shapes.get("token_embedding.weight", shapes.get("text.token_embedding.weight"))
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        text, vision = config["text_cfg"], config["vision_cfg"]
        plain = not {"hf_model_name", "timm_model_name"} & {*text, *vision}
        # Building takes a moment, so models of another width are skipped.
        if "multimodal_cfg" in config or not plain or embedding is None:
            continue
        if (text.get("vocab_size", 49408), text.get("width", 512)) != tuple(embedding):
            continue
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        with torch.device("meta"):
            model = kind(**config)
        if {key: value.shape for key, value in model.state_dict().items()} == shapes:
            found.append(name)
    return found
