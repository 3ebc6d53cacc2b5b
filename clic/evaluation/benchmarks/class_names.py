"""Class names and prompts published with CLIP (arXiv 2103.00020), spelled as published.

Names are listed for data sets whose files contain none, or for which CLIP uses others, in the order
of the class folders (Caltech101, Country211) or of the class numbers (Flowers102).
"""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a semicolon-separated list."""
    return tuple(" ".join(name.split()) for name in text.split(";"))


CALTECH101 = _names("""
background; off-center face; centered face; leopard; motorbike; accordion; airplane; anchor; ant;
barrel; bass; beaver; binocular; bonsai; brain; brontosaurus; buddha; butterfly; camera; cannon;
side of a car; ceiling fan; cellphone; chair; chandelier; body of a cougar cat;
face of a cougar cat; crab; crayfish; crocodile; head of a crocodile; cup; dalmatian; dollar bill;
dolphin; dragonfly; electric guitar; elephant; emu; euphonium; ewer; ferry; flamingo;
head of a flamingo; garfield; gerenuk; gramophone; grand piano; hawksbill; headphone; hedgehog;
helicopter; ibis; inline skate; joshua tree; kangaroo; ketch; lamp; laptop; llama; lobster; lotus;
mandolin; mayfly; menorah; metronome; minaret; nautilus; octopus; okapi; pagoda; panda; pigeon;
pizza; platypus; pyramid; revolver; rhino; rooster; saxophone; schooner; scissors; scorpion;
sea horse; snoopy (cartoon beagle); soccer ball; stapler; starfish; stegosaurus; stop sign;
strawberry; sunflower; tick; trilobite; umbrella; watch; water lilly; wheelchair; wild cat;
windsor chair; wrench; yin and yang symbol
""")

FLOWERS102 = _names("""
pink primrose; hard-leaved pocket orchid; canterbury bells; sweet pea; english marigold; tiger lily;
moon orchid; bird of paradise; monkshood; globe thistle; snapdragon; colt's foot; king protea;
spear thistle; yellow iris; globe flower; purple coneflower; peruvian lily; balloon flower;
giant white arum lily; fire lily; pincushion flower; fritillary; red ginger; grape hyacinth;
corn poppy; prince of wales feathers; stemless gentian; artichoke; sweet william; carnation;
garden phlox; love in the mist; mexican aster; alpine sea holly; ruby-lipped cattleya; cape flower;
great masterwort; siam tulip; lenten rose; barbeton daisy; daffodil; sword lily; poinsettia;
bolero deep blue; wallflower; marigold; buttercup; oxeye daisy; common dandelion; petunia;
wild pansy; primula; sunflower; pelargonium; bishop of llandaff; gaura; geranium; orange dahlia;
pink and yellow dahlia; cautleya spicata; japanese anemone; black-eyed susan; silverbush;
californian poppy; osteospermum; spring crocus; bearded iris; windflower; tree poppy; gazania;
azalea; water lily; rose; thorn apple; morning glory; passion flower; lotus; toad lily; anthurium;
frangipani; clematis; hibiscus; columbine; desert-rose; tree mallow; magnolia; cyclamen;
watercress; canna lily; hippeastrum; bee balm; air plant; foxglove; bougainvillea; camellia; mallow;
mexican petunia; bromelia; blanket flower; trumpet creeper; blackberry lily
""")

COUNTRY211 = _names("""
Andorra; United Arab Emirates; Afghanistan; Antigua and Barbuda; Anguilla; Albania; Armenia; Angola;
Antarctica; Argentina; Austria; Australia; Aruba; Aland Islands; Azerbaijan;
Bosnia and Herzegovina; Barbados; Bangladesh; Belgium; Burkina Faso; Bulgaria; Bahrain; Benin;
Bermuda; Brunei Darussalam; Bolivia; Bonaire, Saint Eustatius and Saba; Brazil; Bahamas; Bhutan;
Botswana; Belarus; Belize; Canada; DR Congo; Central African Republic; Switzerland; Cote d'Ivoire;
Cook Islands; Chile; Cameroon; China; Colombia; Costa Rica; Cuba; Cabo Verde; Curacao; Cyprus;
Czech Republic; Germany; Denmark; Dominica; Dominican Republic; Algeria; Ecuador; Estonia; Egypt;
Spain; Ethiopia; Finland; Fiji; Falkland Islands; Faeroe Islands; France; Gabon; United Kingdom;
Grenada; Georgia; French Guiana; Guernsey; Ghana; Gibraltar; Greenland; Gambia; Guadeloupe; Greece;
South Georgia and South Sandwich Is.; Guatemala; Guam; Guyana; Hong Kong; Honduras; Croatia; Haiti;
Hungary; Indonesia; Ireland; Israel; Isle of Man; India; Iraq; Iran; Iceland; Italy; Jersey;
Jamaica; Jordan; Japan; Kenya; Kyrgyz Republic; Cambodia; St. Kitts and Nevis; North Korea;
South Korea; Kuwait; Cayman Islands; Kazakhstan; Laos; Lebanon; St. Lucia; Liechtenstein; Sri Lanka;
Liberia; Lithuania; Luxembourg; Latvia; Libya; Morocco; Monaco; Moldova; Montenegro; Saint-Martin;
Madagascar; Macedonia; Mali; Myanmar; Mongolia; Macau; Martinique; Mauritania; Malta; Mauritius;
Maldives; Malawi; Mexico; Malaysia; Mozambique; Namibia; New Caledonia; Nigeria; Nicaragua;
Netherlands; Norway; Nepal; New Zealand; Oman; Panama; Peru; French Polynesia; Papua New Guinea;
Philippines; Pakistan; Poland; Puerto Rico; Palestine; Portugal; Palau; Paraguay; Qatar; Reunion;
Romania; Serbia; Russia; Rwanda; Saudi Arabia; Solomon Islands; Seychelles; Sudan; Sweden;
Singapore; St. Helena; Slovenia; Svalbard and Jan Mayen Islands; Slovakia; Sierra Leone; San Marino;
Senegal; Somalia; South Sudan; El Salvador; Sint Maarten; Syria; Eswatini; Togo; Thailand;
Tajikistan; Timor-Leste; Turkmenistan; Tunisia; Tonga; Turkey; Trinidad and Tobago; Taiwan;
Tanzania; Ukraine; Uganda; United States; Uruguay; Uzbekistan; Vatican; Venezuela;
British Virgin Islands; United States Virgin Islands; Vietnam; Vanuatu; Samoa; Kosovo; Yemen;
South Africa; Zambia; Zimbabwe
""")

_OF_A = ("a painting of", "a sculpture of", "a sketch of", "a tattoo of", "a rendition of")
_CALTECH = tuple(
    form.format(article=article, name="{}")
    for article in ("a", "the")
    for form in (
        "a photo of {article} {name}.",
        *(f"{start} {{article}} {{name}}." for start in _OF_A),
        "{article} plastic {name}.",
        "{article} toy {name}.",
        "{article} embroidered {name}.",
        "{article} cartoon {name}.",
        "{article} {name} in a video game.",
        "{article} plushie {name}.",
        "{article} origami {name}.",
        "art of {article} {name}.",
        "graffiti of {article} {name}.",
        "a drawing of {article} {name}.",
        "a doodle of {article} {name}.",
    )
)
_LOOKS = ("blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
_CIFAR = tuple(
    form.format(article=article, name="{}")
    for article in ("a", "the")
    for form in (
        *(f"a {look}photo of {{article}} {{name}}." for look in ("", *_LOOKS)),
        "a photo of {article} small {name}.",
        "a photo of {article} big {name}.",
    )
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "food101": ("a photo of {}, a type of food.",),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "cars": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "fgvc-aircraft": (
        "a photo of a {}, a type of aircraft.",
        "a photo of the {}, a type of aircraft.",
    ),
    "dtd": tuple(
        f"a photo of {article} {{}} {noun}."
        for article in ("a", "the")
        for noun in ("texture", "pattern", "thing", "object")
    ),
    "pets": ("a photo of a {}, a type of pet.",),
    "caltech101": _CALTECH,
    "flowers": ("a photo of a {}, a type of flower.",),
    "country211": (
        "a photo i took in {}.",
        "a photo i took while visiting {}.",
        "a photo from my home country of {}.",
        "a photo from my visit to {}.",
        "a photo showing the country of {}.",
    ),
}
"""CLIP's prompts by benchmark; ``{}`` is the class."""
