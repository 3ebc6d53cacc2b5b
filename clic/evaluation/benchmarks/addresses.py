"""The files that benchmarks share, with their addresses and published checksums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clic.evaluation.benchmarks import aro, caption_retrieval, image_pairs, valse, whatsup
from clic.evaluation.benchmarks import zero_shot as zs
from clic.evaluation.files.file_sources import (
    Archive,
    ByHand,
    File,
    HubFolder,
    ImageList,
    Torchvision,
)

_COCO = "http://images.cocodataset.org"


def drive(identifier: str) -> str:
    """Return the address of a public file on Google Drive, past its page for large files."""
    host = "https://drive.usercontent.google.com"
    return f"{host}/download?id={identifier}&export=download&confirm=t"


def github(repository: str, names: tuple[str, ...], folder: str) -> tuple[File, ...]:
    """Return the JSON files in `data/` of a GitHub repository."""
    base = f"https://raw.githubusercontent.com/{repository}/main/data"
    return tuple(File(f"{base}/{name}.json", f"{folder}/{name}.json") for name in names)


COCO_2017 = Archive(
    f"{_COCO}/zips/val2017.zip",
    name="coco/val2017.zip",
    into="coco",
    gives="coco/val2017",
    checksum="sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    size=815_585_330,
)
COCO_2014 = Archive(
    f"{_COCO}/zips/val2014.zip",
    name="coco/val2014.zip",
    into="coco",
    gives="coco/val2014",
    checksum="md5:a3d79f5ed8d289b7a7554ce06a5782b3",
)
COCO_2014_TRAIN = Archive(
    f"{_COCO}/zips/train2014.zip",
    name="coco/train2014.zip",
    into="coco",
    gives="coco/train2014",
    checksum="md5:0da8c0bd3d6becc4dcb32757491aca88",
)
COCO_CAPTIONS = Archive(
    f"{_COCO}/annotations/annotations_trainval2017.zip",
    name="coco/annotations_trainval2017.zip",
    into="coco",
    gives=caption_retrieval.CAPTIONS,
    checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    size=252_907_541,
    only=caption_retrieval.CAPTIONS.removeprefix("coco/"),
)


def karpathy(path: str) -> Archive:
    """Return the archive of Karpathy's splits, of which one file is wanted."""
    folder, name = path.split("/")
    return Archive(
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        name=f"{folder}/caption_datasets.zip",
        into=folder,
        gives=path,
        only=name,
    )


FLICKR_IMAGES = ByHand(
    caption_retrieval.FLICKR_IMAGES,
    why="Flickr30k's images need a sign-up",
    steps="sign up at https://shannon.cs.illinois.edu/DenotationGraph/ and unpack "
    "flickr30k-images into {data}/flickr30k",
)
WINOGROUND = ByHand(
    image_pairs.EXAMPLES,
    why="Winoground needs a sign-up",
    steps="accept the terms at https://huggingface.co/datasets/facebook/winoground, then: "
    "hf download facebook/winoground --repo-type dataset --include 'data/test-*' "
    "--local-dir {data}/winoground",
    instead=image_pairs.PARQUET,
)
WINOGROUND_IMAGES = replace(WINOGROUND, gives=image_pairs.IMAGES)
IMAGENET = ByHand(
    zs.IMAGENET,
    why="ImageNet needs a sign-up",
    steps="sign up at https://image-net.org/download-images and sort ILSVRC2012_img_val.tar "
    "into {data}/imagenet/val/<wnid>/*.JPEG (1,000 folders)",
)
CARS = ByHand(
    zs.FOLDERS["cars"],
    why="the set's own address is gone",
    steps="put devkit/, cars_test/ and cars_test_annos_withlabels.mat from a copy of Stanford "
    "Cars into {data}/stanford_cars (https://github.com/pytorch/vision/issues/7545)",
)

ARO_IMAGES = Archive(
    drive("1qaPlrwhGNMrR3a11iopZUT_GPP_LrgP9"),
    name="aro/vgr_vga_images.zip",
    into="aro",
    gives=aro.IMAGES,
)
ARO_RELATION = File(drive("1kX2iCHEv0CADL8dSO1nMdW-V0NqIAiP3"), aro.RELATION)
ARO_ATTRIBUTION = File(drive("13tWvOrNOLHxl3Rm9cR3geAdHx2qR3-Tw"), aro.ATTRIBUTION)

SVO = File("https://storage.googleapis.com/dm-mmt-models/svo_probes.csv", image_pairs.PROBES)
SVO_IMAGES = ImageList(image_pairs.IMAGES_SVO, image_pairs.svo_urls)
COLA = File(
    "https://raw.githubusercontent.com/arijitray1993/COLA/main/data/"
    "COLA_multiobjects_matching_benchmark.json",
    image_pairs.PAIRS,
)
COLA_IMAGES = ImageList(image_pairs.IMAGES_COLA, image_pairs.cola_urls)
BIVLC = HubFolder("imirandam/BiVLC", "data", image_pairs.PATTERN, image_pairs.FOLDER)

_WHATSUP = {
    "controlled_images_dataset.json": (
        "1ap8mmmpQjLIjPGuplkpBgc1hoEHCj4hm",
        "sha256:77ee94ae35552ed643ecd47f700daa178e10051458baae99d5c4c5d5922590d3",
    ),
    "controlled_clevr_dataset.json": (
        "1unNNosLbdy9NDjgj4l8fsQP3WiAAGA6z",
        "sha256:2c0df1ab59d13d71442752b4b3c7353114d712a785b0850ec22e11c2b0c474c9",
    ),
    "coco_qa_one_obj.json": ("1RsMdpE9mmwnK4zzMPpC1-wTU_hNis-dq", None),
    "coco_qa_two_obj.json": ("1TCEoM0mgFmz8T4cF7PQ3XJmO6JjtiQ-s", None),
    "vg_qa_one_obj.json": ("1ARMRzRdohs9QTr1gpIfzyUzvW20wYp_p", None),
    "vg_qa_two_obj.json": ("1sjVG5O3QMY8s118k7kQM8zzDZH12i_95", None),
}
WHATSUP = tuple(
    File(drive(identifier), f"{whatsup.FOLDER}/{name}", checksum)
    for name, (identifier, checksum) in _WHATSUP.items()
)


def _whatsup_images(name: str, identifier: str, checksum: str | None) -> Archive:
    folder = whatsup.FOLDER
    return Archive(
        drive(identifier),
        name=f"{folder}/{name}.tar.gz",
        into=folder,
        gives=f"{folder}/{name}",
        checksum=checksum,
    )


WHATSUP_IMAGES = (
    _whatsup_images(
        "controlled_images",
        "19KGYVQjrV3syb00GgcavB2nZTW5NXX0H",
        "sha256:4fc005e7ab1e2ac5e5836d2456dd9ae930239c44953b0b2d3e9523f6ad5b1a69",
    ),
    _whatsup_images(
        "controlled_clevr",
        "13jdBpg8t3NqW3jrL6FK8HO93vwsUjDxG",
        "sha256:df8b23af7dc73c4bf98937777b7a5d85aab42598eace82fa7adad5802df2c493",
    ),
    _whatsup_images("vg_images", "1idW7Buoz7fQm4-670n-oERw9U-2JLJvE", None),
    COCO_2017,
)


def _valse_images(url: str, dataset: str, top: str) -> Archive:
    folder = valse.FOLDERS[dataset]
    return Archive(
        url,
        name=f"{folder}.zip",
        into=valse.FOLDER,
        gives=folder,
        rename=(top, folder.removeprefix(f"{valse.FOLDER}/")),
    )


VALSE_IMAGES = (
    _valse_images("http://vision.stanford.edu/yukezhu/visual7w_images.zip", "visual7w", "images"),
    _valse_images(
        "https://swig-data-weights.s3.us-east-2.amazonaws.com/images_512.zip", "SWiG", "images_512"
    ),
    _valse_images(
        "https://www.dropbox.com/s/twmtutniktom7tu/VisualDialog_val2018.zip?dl=1",
        "VisDial_v1.0",
        "VisualDialog_val2018",
    ),
    COCO_2014_TRAIN,
    COCO_2014,
    COCO_2017,
)


def torchvision(name: str) -> Torchvision:
    """Return torchvision's own download of one of the ten sets."""

    def fetch(data_root: Path) -> object:
        return zs.make_dataset(name, data_root, download=True)

    return Torchvision(zs.FOLDERS[name], fetch)
