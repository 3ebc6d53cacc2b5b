"""What makes a replaced or swapped caption really false, and one that reads well."""

from __future__ import annotations

import pytest

from clic.captions import make_tagger, replace, swap
from clic.captions.lexicon import Lexicon
from clic.captions.swap import third_person
from clic.seeding import generator
from clic.types import Token

TAG = make_tagger("hanta")


def tokens(marked: str) -> tuple[str, tuple[Token, ...]]:
    """Return the text and tokens of ``word/POS`` or ``word/POS/lemma`` items."""
    text, out = "", []
    for item in marked.split():
        word, pos, *lemma = item.split("/")
        text += " " * bool(text)
        out.append(Token(word, len(text), len(text) + len(word), pos, (lemma or [word.lower()])[0]))
        text += word
    return text, tuple(out)


def replaced(marked: str, *lines: str, n: int = 40) -> set[str]:
    """Return the texts of many replacements by these sets, nothing being the word None."""
    caption, tagged = tokens(marked)
    lexicon = Lexicon(lines)
    made = [replace(caption, tagged, generator(0, "t", slot=i), lexicon) for i in range(n)]
    return {m.text if m else "None" for m in made}


def olds(caption: str, n: int = 150) -> set[str]:
    """Return the words that the shipped lexicon replaces in a caption."""
    made = [replace(caption, TAG(caption), generator(0, "t", slot=i)) for i in range(n)]
    return {e.old for m in made if m for e in m.edits if e.old.lower() not in ("a", "an")}


def swapped(caption: str, n: int = 80) -> set[str]:
    made = [swap(caption, TAG(caption), generator(0, "t", slot=i)) for i in range(n)]
    return {m.text if m else "None" for m in made}


class TestReplace:
    def test_article_case_and_number(self) -> None:
        animals = "a NOUN: dog~dogs, owl~owls"
        assert replaced("A/DET dog/NOUN sits/VERB", animals) == {"An owl sits"}
        assert replaced("an/DET owl/NOUN", animals) == {"a dog"}
        assert replaced("Dogs/NOUN/dog bark/VERB", animals) == {"Owls bark"}

    def test_equal_forms_are_told_apart_by_the_determiner(self) -> None:
        sheep = "a NOUN: sheep~sheep, cow~cows"
        assert replaced("a/DET sheep/NOUN", sheep) == {"a cow"}
        assert replaced("two/NUM sheep/NOUN", sheep) == {"two cows"}

    def test_mass_and_count(self) -> None:
        food = "a NOUN: pizza~pizzas~pizza, ~~soup, burger~burgers~"
        assert replaced("eating/VERB pizza/NOUN", food) == {"eating soup"}
        assert replaced("a/DET pizza/NOUN", food) == {"a burger"}

    def test_verb_forms(self) -> None:
        verbs = "a VERB: hold~holds~holding~held~held, throw~throws~throwing~threw~thrown"
        assert replaced("a/DET man/NOUN held/VERB a/DET ball/NOUN", verbs) == {"a man threw a ball"}
        assert replaced("a/DET ball/NOUN held/VERB by/ADP him/PRON", verbs) == {
            "a ball thrown by him"
        }
        assert replaced("is/AUX held/VERB", verbs) == {"is thrown"}
        assert replaced("holding/VERB it/PRON", verbs) == {"throwing it"}

    def test_what_the_caption_has_is_no_alternative_in_any_form(self) -> None:
        animals = "a NOUN: dog~dogs/puppy~puppies, cat~cats, owl~owls"
        assert replaced("a/DET cat/NOUN and/CCONJ two/NUM puppies/NOUN", animals) == {
            "an owl and two puppies",
            "a cat and two owls",
        }

    def test_compounds_stay_whole(self) -> None:
        sets = "a NOUN: truck~trucks, car~cars"
        assert replaced("a/DET fire/NOUN truck/NOUN", sets) == {"None"}
        assert replaced("a/DET car/NOUN door/NOUN", sets) == {"None"}
        assert replaced("a/DET brick/NOUN car/NOUN", "class modifiers: brick", sets) == {
            "a brick truck"
        }

    def test_fixed_phrases_stay(self) -> None:
        sizes = "s ADJ: big, small"
        assert replaced("a/DET big/ADJ clock/NOUN", sizes) == {"a small clock"}
        assert replaced("big/ADJ ben/NOUN", "class fixed: big ben", sizes) == {"None"}

    def test_places_of_a_condition(self) -> None:
        on = "on ADP before table: on > under"
        assert replaced("on/ADP a/DET small/ADJ table/NOUN", on) == {"under a small table"}
        assert replaced("on/ADP a/DET beach/NOUN", on) == {"None"}
        of = "drinks NOUN after of: water~~water, milk~~milk"
        assert replaced("glass/NOUN of/ADP water/NOUN", of) == {"glass of milk"}
        assert replaced("in/ADP the/DET water/NOUN", of) == {"None"}
        sit = "sit VERB after dog before -: sitting, standing"
        assert replaced("a/DET dog/NOUN is/AUX sitting/VERB", sit) == {"a dog is standing"}
        assert replaced("a/DET cup/NOUN sitting/VERB", sit) == {"None"}

    def test_the_subject_is_not_what_it_wears(self) -> None:
        sit = ("class animate: man", "sit VERB after man: sitting, standing")
        caption = "a/DET man/NOUN in/ADP a/DET hat/NOUN sitting/VERB"
        assert replaced(caption, *sit) == {"a man in a hat standing"}

    def test_groups_are_looked_through(self) -> None:
        near = ("class measure: herd", "n ADP before cows: near > far from")
        assert replaced("near/ADP a/DET herd/NOUN of/ADP cows/NOUN", *near) == {
            "far from a herd of cows"
        }

    def test_fallback_is_for_captions_without_others(self) -> None:
        sets = ("a NOUN: dog, cat", "b NOUN fallback: lamp, clock")
        assert replaced("a/DET dog/NOUN on/ADP a/DET lamp/NOUN", *sets) == {"a cat on a lamp"}
        assert replaced("a/DET lamp/NOUN", *sets) == {"a clock"}

    def test_counts_decide_how_often(self) -> None:
        caption, tagged = tokens("a/DET dog/NOUN")
        lexicon = Lexicon(["a NOUN: dog > cat*9, owl*1"])
        made = [replace(caption, tagged, generator(0, "t", slot=i), lexicon) for i in range(400)]
        cats = sum(m is not None and m.text == "a cat" for m in made)
        assert 330 < cats < 390  # 360 expected

    def test_nobody_is_given_another_colour_or_identity(self) -> None:
        assert "white" not in olds("a white man holding a red cup")
        assert "black" not in olds("two black women on a bench")
        assert olds("an asian woman and an american dog") == {"woman", "dog"}

    def test_compatible_words_are_no_alternatives(self) -> None:
        for seed in range(100):
            caption = "a man standing near a table"
            made = replace(caption, TAG(caption), generator(seed, "t"))
            assert made is not None
            assert "next to" not in made.text and "person" not in made.text


class TestSwap:
    @pytest.mark.parametrize(
        "caption",
        [
            "men on a beach with surfboards",
            "a cat laying on a couch next to a dog",
            "a grey and red fire hydrant",
            "a man in a red shirt and a man in a blue shirt",
            "a plate with beans, pickles, and carrots",
            "a street in a city",
            "a man sitting in a chair smiling",
            "a person near a woman",
        ],
    )
    def test_the_same_said_anew_is_no_negative(self, caption: str) -> None:
        both = {
            "men on a beach with surfboards": "surfboards on a beach with men",
            "a cat laying on a couch next to a dog": "a dog laying on a couch next to a cat",
            "a grey and red fire hydrant": "a red and grey fire hydrant",
            "a man in a red shirt and a man in a blue shirt": (
                "a man in a blue shirt and a man in a red shirt"
            ),
            "a plate with beans, pickles, and carrots": "a plate with pickles, beans, and carrots",
            "a street in a city": "a city in a street",
            "a man sitting in a chair smiling": "a man smiling in a chair sitting",
            "a person near a woman": "a woman near a person",
        }
        assert both[caption] not in swapped(caption)

    def test_modifiers_that_move_make_it_false(self) -> None:
        assert "a dog stands beside a striped cat" in swapped("a cat stands beside a striped dog")

    def test_two_colours_go_before_odd_pairs(self) -> None:
        caption = "a red bus next to a blue car on a bridge"
        made = [swap(caption, TAG(caption), generator(0, "t", slot=i)) for i in range(200)]
        best = {
            "a blue bus next to a red car on a bridge",
            "a red car next to a blue bus on a bridge",
            "a blue car next to a red bus on a bridge",
        }
        assert sum(m is not None and m.text in best for m in made) > 160

    def test_numbers_change_places(self) -> None:
        assert "three dogs and two cats" in swapped("two dogs and three cats")

    def test_the_verb_follows_the_number(self) -> None:
        assert "A bench is behind two dogs" in swapped("Two dogs are behind a bench")
        assert "there is a bench under dogs" in swapped("there are dogs under a bench")
        assert third_person("watch") == "watches"
        assert third_person("carry") == "carries"
        assert third_person("play") == "plays"
        assert third_person("sit") == "sits"

    def test_no_colour_moves_onto_people(self) -> None:
        for caption in ("a man in a black hat", "a woman wearing a white dress holding a cup"):
            for text in swapped(caption):
                assert "black man" not in text and "white woman" not in text

    def test_sizes_of_two_things_do_not_swap_with_ages(self) -> None:
        for text in swapped("a large dog on an old bench"):
            assert text != "an old dog on a large bench"
