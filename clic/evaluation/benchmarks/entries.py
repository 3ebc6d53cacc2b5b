"""Every benchmark, in the order in which they are listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from clic.evaluation.benchmarks import (
    addresses,
    aro,
    caption_retrieval,
    image_pairs,
    sugarcrepe,
    valse,
    whatsup,
    world,
)
from clic.evaluation.benchmarks.benchmark import VALIDATION, Benchmark, of_files, on_validation
from clic.evaluation.benchmarks.classification import CLASSIFICATION, RULE
from clic.evaluation.tables.table import Table

_TRIPLET = "ITT: the image prefers both true captions; TOT: the captions alone"
_CHOICE = "the right option beats every other one"
_RECALL = "recall at 1, 5 and 10, both ways; any caption of an image is a match"
_ARO = "Yuksekgonul et al. 2023, arXiv 2210.01936"
_SHUFFLES = (
    "the shuffles are fixed, and of this package's own words and tags; the published code draws "
    "them anew with spaCy and NLTK, so numbers differ by its noise"
)
_PRE_CAPTION = (
    "captions are as the file has them; CLIC's and ARO's code lower-cases them, drops most "
    "punctuation and cuts them after 30 words"
)


def _made(
    name: str,
    title: str,
    about: str,
    rule: str,
    load: Callable[[str, int], Table],
    text_metrics: bool = False,
) -> Benchmark:
    """Return a benchmark of the world, which needs no files."""
    made = Benchmark(
        name=name,
        title=title,
        about=about,
        load=lambda data_root, split, seed: load(split, seed),
        version="1",
        citation="made by clic.shapes",
        licence="MIT",
        rule=rule,
        text_metrics=text_metrics,
    )
    validation = replace(
        made,
        name=f"{name}{VALIDATION}",
        title=f"{title}, validation",
        load=lambda data_root, split, seed: load("validation", seed),
        split="validation",
    )
    return replace(made, validation=validation)


_WORLD = (
    _made(
        "shapes++",
        "Shapes++",
        "two true captions, a false one",
        _TRIPLET,
        world.load_triplets,
        text_metrics=True,
    ),
    _made(
        "shapes-relations",
        "Shapes relations",
        "by phrase, form of sentence and position",
        _TRIPLET,
        world.load_relations,
        text_metrics=True,
    ),
    _made(
        "shapes-retrieval",
        "Shapes retrieval",
        "500 scenes of distinct attributes",
        _RECALL,
        world.load_retrieval,
    ),
    _made(
        "shapes-zero-shot",
        "Shapes zero-shot",
        "shape, colour and pair of one thing",
        RULE,
        world.load_zero_shot,
    ),
)
_COMPOSITIONAL = (
    Benchmark(
        name="sugarcrepe++",
        title="SugarCrepe++",
        about="two true captions, a false one",
        load=of_files(sugarcrepe.load_sugarcrepe_pp),
        version="1",
        citation="Dumpala et al. 2024, arXiv 2406.11171",
        licence="CC BY 4.0",
        rule=_TRIPLET,
        annotations=addresses.github(
            "Sri-Harsha/scpp", sugarcrepe.PLUS_CATEGORIES, "sugarcrepe_pp"
        ),
        images=(addresses.COCO_2017,),
        rows=4757,
        text_metrics=True,
    ),
    Benchmark(
        name="sugarcrepe",
        title="SugarCrepe",
        about="a true caption, a false one",
        load=of_files(sugarcrepe.load_sugarcrepe),
        version="1",
        citation="Hsieh et al. 2023, arXiv 2306.14610",
        licence="MIT",
        rule="the true caption beats the false one",
        annotations=addresses.github("RAIVNLab/sugar-crepe", sugarcrepe.CATEGORIES, "sugarcrepe"),
        images=(addresses.COCO_2017,),
        rows=7511,
        differs="`mean` is over the seven categories; some papers average rows, or the three kinds",
    ),
    Benchmark(
        name="winoground",
        title="Winoground",
        about="two images, two captions of the same words",
        load=of_files(image_pairs.load_winoground),
        version="1",
        citation="Thrush et al. 2022, arXiv 2204.03162",
        licence="META IMAGES RESEARCH LICENSE, after a sign-up",
        rule="text, image and group score",
        annotations=(addresses.WINOGROUND,),
        images=(addresses.WINOGROUND_IMAGES,),
        rows=400,
    ),
    Benchmark(
        name="aro-relation",
        title="ARO VG-Relation",
        about="who does what to whom, on a part of an image",
        load=of_files(aro.load_relation),
        version="1",
        citation=_ARO,
        licence="MIT; images of Visual Genome, CC BY 4.0",
        rule=_CHOICE,
        annotations=(addresses.ARO_RELATION,),
        images=(addresses.ARO_IMAGES,),
        rows=23_937,
    ),
    Benchmark(
        name="aro-attribution",
        title="ARO VG-Attribution",
        about="which attribute belongs to which thing",
        load=of_files(aro.load_attribution),
        version="1",
        citation=_ARO,
        licence="MIT; images of Visual Genome, CC BY 4.0",
        rule=_CHOICE,
        annotations=(addresses.ARO_ATTRIBUTION,),
        images=(addresses.ARO_IMAGES,),
        rows=28_748,
    ),
    Benchmark(
        name="coco-order",
        title="ARO COCO-Order",
        about="a caption among four shuffles of it",
        load=of_files(aro.load_coco_order),
        version="1",
        citation=_ARO,
        licence="CC BY 4.0",
        rule=_CHOICE,
        annotations=(addresses.karpathy(caption_retrieval.KARPATHY_COCO),),
        images=(addresses.COCO_2014,),
        rows=25_010,
        differs=_SHUFFLES,
    ),
    Benchmark(
        name="flickr30k-order",
        title="ARO Flickr30k-Order",
        about="a caption among four shuffles of it",
        load=of_files(aro.load_flickr30k_order),
        version="1",
        citation=_ARO,
        licence="research only, after a sign-up",
        rule=_CHOICE,
        annotations=(addresses.karpathy(caption_retrieval.KARPATHY_FLICKR),),
        images=(addresses.FLICKR_IMAGES,),
        rows=5000,
        differs=_SHUFFLES,
    ),
    Benchmark(
        name="svo-probes",
        title="SVO-Probes",
        about="a sentence, its image, and one that differs",
        load=of_files(image_pairs.load_svo),
        version="1",
        citation="Hendricks and Nematzadeh 2021, arXiv 2106.09141",
        licence="CC BY 4.0; images from the web",
        rule="the sentence's own image beats the other one",
        annotations=(addresses.SVO,),
        images=(addresses.SVO_IMAGES,),
        differs="the paper classifies single pairs as matching or not, which a cosine alone does "
        "not; many images are gone from the web, so quote the row count",
    ),
    Benchmark(
        name="whatsup",
        title="What's Up",
        about="spatial prepositions, four options or two",
        load=of_files(whatsup.load_whatsup),
        version="1",
        citation="Kamath et al. 2023, arXiv 2310.19785",
        licence="MIT",
        rule=f"{_CHOICE}; pairs and sets: all of their rows do",
        annotations=addresses.WHATSUP,
        images=addresses.WHATSUP_IMAGES,
        rows=4958,
    ),
    Benchmark(
        name="cola",
        title="Cola (multi-object)",
        about="two images with swapped attributes",
        load=of_files(image_pairs.load_cola),
        version="1",
        citation="Ray et al. 2023, arXiv 2305.03689",
        licence="MIT; images of Visual Genome, CC BY 4.0",
        rule="each caption's own image beats the other one",
        annotations=(addresses.COLA,),
        images=(addresses.COLA_IMAGES,),
        rows=210,
    ),
    Benchmark(
        name="valse",
        title="VALSE",
        about="captions and foils of six phenomena",
        load=of_files(valse.load_valse),
        version="1",
        citation="Parcalabescu et al. 2022, arXiv 2112.07566",
        licence="MIT; images of their sources",
        rule="the caption beats the foil (the paper's pairwise accuracy)",
        annotations=addresses.github("Heidelberg-NLP/VALSE", valse.PIECES, valse.FOLDER),
        images=addresses.VALSE_IMAGES,
        differs="only rows that two of three annotators confirmed, as the authors ask; some "
        "public code scores all rows",
    ),
    Benchmark(
        name="bivlc",
        title="BiVLC",
        about="SugarCrepe both ways, with images of its own",
        load=of_files(image_pairs.load_bivlc),
        version="1",
        citation="Miranda et al. 2024, arXiv 2406.09952",
        licence="MIT; images of COCO and generated ones",
        rule="i2t, t2i and group, and their four parts",
        annotations=(addresses.BIVLC,),
        rows=2933,
        differs="replace, swap and add are means over their subtypes; the published code averages "
        "their rows",
    ),
)
_RETRIEVAL = (
    on_validation(
        Benchmark(
            name="coco-retrieval",
            title="COCO retrieval, Karpathy test",
            about="5,000 images of val2014, 25,010 captions",
            load=of_files(caption_retrieval.load_coco),
            version="1",
            citation="Karpathy and Fei-Fei 2015, arXiv 1412.2306",
            licence="CC BY 4.0",
            rule=_RECALL,
            annotations=(addresses.karpathy(caption_retrieval.KARPATHY_COCO),),
            images=(addresses.COCO_2014,),
            rows=5000 + 25_010,
            differs=_PRE_CAPTION,
        ),
        load=partial(caption_retrieval.load_coco, split="val"),
        title="COCO retrieval, Karpathy validation",
        about="5,000 other images of val2014, 25,010 captions",
        rows=5000 + 25_010,
    ),
    Benchmark(
        name="coco2017-retrieval",
        title="COCO retrieval, val2017",
        about="5,000 images, the first five captions of each",
        load=of_files(caption_retrieval.load_coco2017),
        version="1",
        citation="Chen et al. 2015, arXiv 1504.00325",
        licence="CC BY 4.0",
        rule=_RECALL,
        annotations=(addresses.COCO_CAPTIONS,),
        images=(addresses.COCO_2017,),
        rows=5000 + 25_000,
        differs=f"{_PRE_CAPTION}; and CLIC's code reads a list of its own that is not published",
    ),
    on_validation(
        Benchmark(
            name="flickr30k-retrieval",
            title="Flickr30k retrieval, Karpathy test",
            about="1,000 images, 5,000 captions",
            load=of_files(caption_retrieval.load_flickr30k),
            version="1",
            citation="Young et al. 2014, 10.1162/tacl_a_00166",
            licence="research only, after a sign-up",
            rule=_RECALL,
            annotations=(addresses.karpathy(caption_retrieval.KARPATHY_FLICKR),),
            images=(addresses.FLICKR_IMAGES,),
            rows=1000 + 5000,
            differs=_PRE_CAPTION,
        ),
        load=partial(caption_retrieval.load_flickr30k, split="val"),
        title="Flickr30k retrieval, Karpathy validation",
        about="1,014 images, 5,070 captions",
        rows=1014 + 5070,
    ),
)

ENTRIES = (*_WORLD, *_COMPOSITIONAL, *_RETRIEVAL, *CLASSIFICATION)
