"""`clic-data caption`: new captions in the shards, the earlier ones beside them, resumed."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from clic.data.shards.index import index_path
from clic.data.tools import image_captioning
from clic.data.tools.annotating import on_ray
from clic.data.tools.image_captioning import Captioning
from clic.errors import ConfigError

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shard(clic_data: Command, tmp_path: Path) -> Path:
    """A tar with an image in a JSON's company, one in a text's, one alone, and a broken one."""
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (20, 12), (80 * number, 50, 200)).save(folder / f"{name}.png")
    (folder / "a.json").write_text(json.dumps({"captions": ["old", "older"], "negatives": ["no"]}))
    (folder / "b.txt").write_text("of a text")
    (folder / "d.png").write_bytes(b"no image")
    (folder / "d.txt").write_text("broken")
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the captioner by one that tells an image's colour, and count its batches."""
    sizes: list[int] = []

    def make(how: Captioning) -> Callable[[list[object]], list[str]]:
        def caption(pixels: list[object]) -> list[str]:
            sizes.append(len(pixels))
            return [f"red {int(each[0, 0, 0])}" for each in pixels]  # type: ignore[index]

        return caption

    monkeypatch.setattr(image_captioning, "_captioner", make)
    return sizes


def records(path: Path) -> dict[str, dict[str, object]]:
    with tarfile.open(path) as tar:
        names = [m.name for m in tar if m.name.endswith(".json")]
        return {name[0]: json.loads(tar.extractfile(name).read()) for name in names}  # type: ignore[union-attr]


def test_captions_replace_and_keep_the_earlier_ones(
    clic_data: Command, shard: Path, counted: list[int]
) -> None:
    code, out, _ = clic_data("caption", shard, "--model", "mine", "--batch-size", "2")
    assert code == 0 and counted == [2, 1]
    assert "3 images captioned, 0 were already" in out and "1 samples cannot be read" in out
    found = records(shard)
    assert found["a"] == {
        "captions": ["red 0"], "own_captions": ["old", "older"], "own_negatives": ["no"],
        "captioned_by": "mine",
    }  # fmt: skip
    assert found["b"]["captions"] == ["red 80"] and found["b"]["own_captions"] == ["of a text"]
    assert found["c"]["captions"] == ["red 160"] and found["c"]["own_captions"] == []
    assert "d" not in found and index_path(shard).is_file()


def test_the_same_command_continues_and_another_model_keeps_the_first_captions(
    clic_data: Command, shard: Path, counted: list[int]
) -> None:
    assert clic_data("caption", shard, "--model", "mine")[0] == 0
    before = shard.read_bytes()
    code, out, _ = clic_data("caption", shard, "--model", "mine")
    assert code == 0 and "0 images captioned, 3 were already" in out
    assert shard.read_bytes() == before and counted == [3]
    assert clic_data("caption", shard, "--model", "other")[0] == 0
    found = records(shard)
    assert found["a"]["own_captions"] == ["old", "older"] and found["a"]["captioned_by"] == "other"
    assert clic_data("caption", shard, "--model", "other", "--force")[0] == 0
    assert counted == [3, 3, 3]


def test_missing_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'clic\[caption\]'"):
        image_captioning.ImageCaptioner(Captioning())


@pytest.fixture
def blip(tmp_path: Path) -> Path:
    """The folder of a tiny random BLIP."""
    transformers = pytest.importorskip("transformers")
    import torch

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "red", "dog", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2}  # fmt: skip
    config = transformers.BlipConfig(
        text_config={**common, "vocab_size": len(words), "encoder_hidden_size": 16,
                     "bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0},
        vision_config={**common, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path / "blip"
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    size = {"height": 32, "width": 32}
    images = transformers.BlipImageProcessor(size=size)
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_captions(
    clic_data: Command, shard: Path, blip: Path, tmp_path: Path
) -> None:
    words = ("caption", shard, "--model", blip, "--device", "cpu", "--max-tokens", "5")
    code, out, err = clic_data(*words)
    assert code == 0 and "3 images captioned" in out, err
    known = (tmp_path / "vocab.txt").read_text().split()
    captions = [record["captions"] for record in records(shard).values()]
    assert all(set(text.split()) <= set(known) for (text,) in captions)  # type: ignore[union-attr]
    first = shard.read_bytes()
    assert clic_data(*words, "--force")[0] == 0
    assert shard.read_bytes() == first
    code, _, err = clic_data("caption", shard, "--model", tmp_path / "nowhere")
    assert code == 2 and "no captioning model of transformers" in err


# --- on Ray --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_of_ray_write_what_one_process_writes(
    clic_data: Command, shard: Path, blip: Path
) -> None:
    pytest.importorskip("ray", reason="the extra clic[ray] is not installed")
    shards = [shard.with_name(f"0000{number}.tar") for number in range(1, 5)]
    for other in shards:
        other.write_bytes(shard.read_bytes())
    words = ("--model", blip, "--max-tokens", "5")
    assert clic_data("caption", shard, *words, "--device", "cpu")[0] == 0
    code, out, err = clic_data("caption", *shards, *words, "--device", "cpu", "--ray", "local")
    assert code == 0 and "4 tars: 12 images captioned, 0 were already" in out, err
    assert all(other.read_bytes() == shard.read_bytes() for other in shards)
    assert all(index_path(other).is_file() for other in shards)


class FakeRay:
    """Ray as `on_ray` uses it, on this process, with a number of GPUs."""

    def __init__(self, gpus: int) -> None:
        self.gpus, self.options = gpus, dict[str, int]()
        crashed = type("WorkerCrashedError", (Exception,), {})
        failed = type("RayTaskError", (Exception,), {})
        self.exceptions = SimpleNamespace(WorkerCrashedError=crashed, RayTaskError=failed)

    def init(self, **how: object) -> None: ...

    def shutdown(self) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "GPU": float(self.gpus)} if self.gpus else {"CPU": 2.0}

    def remote(self, **options: int) -> Callable[[Callable[..., object]], object]:
        self.options = options
        return lambda work: SimpleNamespace(remote=work)

    def wait(self, pending: list[object]) -> tuple[list[object], list[object]]:
        return pending[:1], pending[1:]

    def get(self, result: object) -> object:
        return result


@pytest.mark.parametrize(
    ("device", "there", "asked"),
    [("cpu", 4, 0), ("auto", 4, 1), ("auto", 0, 0), ("cuda", 4, 1), ("cuda", 0, 1)],
)
def test_a_task_asks_for_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, device: str, there: int, asked: int
) -> None:
    """A task that asks for what no machine has would wait for ever; a GPU keeps its model."""
    fake = FakeRay(there)
    monkeypatch.setitem(sys.modules, "ray", fake)
    work = list(on_ray(lambda shard: shard, (), [Path("/x.tar")], "auto", device))
    assert work == ["/x.tar"]
    assert (fake.options["num_gpus"], fake.options["max_calls"]) == (asked, 0)


def test_ray_on_a_machine_without_a_gpu_refuses_to_wait_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(0))
    with pytest.raises(ConfigError, match="no GPU on this machine; use --device cpu"):
        list(on_ray(lambda shard: shard, (), [Path("/x.tar")], "local", "cuda"))
