"""Sentences of ordinary English, without given words: for running speech in which no keyword is said."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from kws_data.errors import KwsError
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthetic_voices import ACCENTS

_STRESS_AND_LENGTH = str.maketrans("", "", "ˈˌː ")

WORDS = {
    "person": """
        mother father teacher doctor farmer driver sailor painter baker captain neighbour student brother sister uncle
        daughter nurse judge singer engineer gardener lawyer soldier waiter carpenter librarian musician reporter
        plumber hunter king queen stranger guest cousin grandmother minister tailor pilot clerk aunt husband widow
        butcher dentist chef jeweller shepherd mechanic""",
    "thing": """
        basket letter window table bottle ladder camera blanket guitar hammer jacket kettle lamp mirror newspaper
        package picture pillow ring rope saddle shovel suitcase ticket umbrella violin wallet bicycle candle carpet
        clock coat curtain drawer engine envelope fence flag helmet key knife machine map medal necklace pencil plate
        radio shirt spoon sweater telephone trumpet vase wagon wheel whistle diary anchor barrel bell brush bucket
        calendar chain cushion fiddle harp kite lantern magnet needle parcel ribbon scarf statue thread tractor""",
    "animal": """
        horse rabbit tiger camel spider turtle monkey pigeon squirrel donkey elephant parrot sheep goat fox mouse eagle
        frog wolf bear cow chicken duck lion pony swan bee whale dolphin beetle""",
    "food": """
        bread butter cheese soup coffee honey rice sugar chicken cabbage pepper salad chocolate milk cake fish fruit
        garlic ginger jam juice meat mustard pasta pie porridge sauce tea vinegar cream""",
    "place": """
        garden kitchen market village river mountain library station museum harbour forest valley bridge castle church
        factory farm hospital hotel island lake palace school street theatre tower beach desert garage hall cellar
        bakery airport park square stable temple university canal field barn cottage hill pier shop studio""",
    "adjective": """
        small heavy quiet ancient bitter brave broken careful cheap clever cold curious dirty empty famous gentle
        golden green hungry large lazy little narrow nervous pale patient polite proud rich rough round sad silver
        simple sleepy strange sweet thin tired ugly warm wide wild wooden young beautiful expensive black blue brown
        bright cruel damp fresh grey grand huge kind plain pretty purple quick red sharp slow smooth soft spare tall
        tiny white""",
    "took": """
        carried found painted repaired borrowed bought sold cleaned covered described dropped examined gathered held
        hid kept lifted measured moved noticed opened packed placed polished pulled pushed recognized refused
        remembered removed returned saved shared stole studied threw touched watched wrapped washed brought buried
        chose counted drew followed guarded mended ordered reached""",
    "waited": """
        laughed waited walked whispered slept sang smiled danced argued complained disappeared shouted travelled worked
        rested listened cried fell hesitated swam blinked climbed coughed dreamed escaped grumbled hurried jumped
        knelt paused prayed ran relaxed shivered sighed stumbled talked trembled vanished wept""",
    "slowly": """
        slowly quickly quietly suddenly carefully gladly rarely always usually secretly proudly badly easily sadly
        politely bravely calmly eagerly finally gently happily nearly neatly silently simply""",
    "idea": """
        idea answer problem question story truth weather music history money law science promise mistake danger chance
        price plan trouble reason message language dream memory advice art beauty courage custom debt luck method
        peace pleasure power secret skill treasure tradition victory""",
    "when": """
        last_week every_morning in_the_evening after_dinner before_sunrise in_winter during_the_summer at_midnight
        this_month many_years_ago later_that_day at_the_same_time in_the_spring every_Sunday last_March each_autumn
        after_the_storm before_the_war until_sunset all_night_long""",
    "beside": "near behind beside beyond across around outside under above past",
}

TEMPLATES = (
    "the {person} {took} the {adjective} {thing}",
    "the {adjective} {person} {waited} {beside} the {place}",
    "{when}, the {person} {took} a {thing} and {waited}",
    "my {person} {slowly} {took} the {thing} {beside} the {place}",
    "a {adjective} {animal} {waited} {beside} the {adjective} {place}",
    "the {animal} and the {animal} {waited} in the {place} {when}",
    "she {took} the {food} while her {person} {waited}",
    "he {slowly} {took} his {thing}, because the {person} {waited}",
    "they {took} some {food} and a {thing} {when}",
    "we all {waited} when the {person} {took} our {thing}",
    "the {idea} was {adjective}, and the {person} {slowly} {waited}",
    "there is a {adjective} {place} {beside} the {place}",
    "there was {food} with {food} in the {place}",
    "is the {thing} as {adjective} as that {thing}",
    "where has the {person} hidden the {adjective} {thing}",
    "why did the {person} ask about the {idea}",
    "who {took} the {thing} that the {person} {took}",
    "have they ever seen a {adjective} {animal}",
    "{when}, my {person} makes {food} with {food}",
    "it seems that the {person} {took} an {idea}",
    "the {thing} of the {person} is {adjective} and {adjective}",
    "his {idea} and her {idea} are much the same",
    "please bring me the {adjective} {thing} from the {place}",
    "if the {person} comes, we shall give them {food}",
    "although the {place} was {adjective}, the {animal} {waited}",
    "I think the {idea} is more {adjective} than the {idea}",
    "you can see the {place} from the {adjective} {place}",
    "each {person} {took} the {thing} with {idea} and {idea}",
    "the {person}, a {adjective} {person}, {waited} {when}",
    "I have never liked the {food} that your {person} makes",
    "our {person} said that the {idea} would not help them",
    "what a {adjective} {animal} that is, said the {person}",
    "let us meet {beside} the {place} {when}",
    "she has been a {person} since she {took} the {thing}",
    "there were {adjective} people in every {place}",
    "the {person} read about the {idea} in a {adjective} {thing}",
)

_TOKEN = re.compile(r"\{\w+\}|[\w']+")


class Sentences:
    """Sentences made of TEMPLATES and WORDS, of which those that hold a word to avoid are left out.

    A word is left out if it begins or ends with one to avoid ('upstairs' for 'up'), or sounds the same in any accent
    of the engine ('know' for 'no'). Of a phrase to avoid, each word counts.

    Raises:
        KwsError: nothing is left.
    """

    def __init__(self, avoid: Collection[str], engine: SpeechEngine) -> None:
        lists = {slot: words.split() for slot, words in WORDS.items()}
        texts = {*TEMPLATES, *(word for words in lists.values() for word in words)}
        spoken = sorted({token for text in texts for token in tokens(text)})
        unwanted = tuple(sorted({part for word in avoid for part in re.split(r"[\s_-]+", word.casefold()) if part}))
        alike = sound_alike(unwanted, spoken, engine)
        bad = {word for word in spoken if word in alike or word.startswith(unwanted) or word.endswith(unwanted)}
        self.words = {
            slot: [word.replace("_", " ") for word in words if bad.isdisjoint(tokens(word))]
            for slot, words in lists.items()
        }
        self.templates = [
            template
            for template in TEMPLATES
            if bad.isdisjoint(tokens(template)) and all(self.words[slot] for slot in _slots(template))
        ]
        if not self.templates:
            raise KwsError(f"no sentence can be made without the words {', '.join(unwanted)}; give recordings instead")

    def draw(self, rng: np.random.Generator) -> str:
        """A sentence."""
        template = self.templates[rng.integers(len(self.templates))]
        sentence = re.sub(r"\{(\w+)\}", lambda slot: _pick(self.words[slot[1]], rng), template)
        return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def _pick(words: list[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]


def tokens(text: str) -> list[str]:
    """The words of a template or of an entry of WORDS, without its slots."""
    return [token.casefold() for token in _TOKEN.findall(text.replace("_", " ")) if not token.startswith("{")]


def _slots(template: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", template)


def sounds(words: Sequence[str], language: str, engine: SpeechEngine) -> list[str]:
    """The phonemes of words, without stress and length."""
    return [sound.translate(_STRESS_AND_LENGTH) for sound in engine.phonemes(words, language)]


def sound_alike(words: Sequence[str], others: Sequence[str], engine: SpeechEngine) -> set[str]:
    """Those of `others` that sound the same as one of `words`, in any accent of the engine."""
    alike: set[str] = set()
    for accent in ACCENTS:
        spoken = sounds([*words, *others], accent, engine)
        wanted = set(spoken[: len(words)])
        alike |= {other for other, sound in zip(others, spoken[len(words) :], strict=True) if sound in wanted}
    return alike
