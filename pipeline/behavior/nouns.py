"""Names of BDDL objects in English: `ashcan.n.01_1` is the trash can."""

from __future__ import annotations

# What people call things that WordNet calls otherwise.
EVERYDAY = {
    "allen_wrench": "hex key",
    "ashcan": "trash can",
    "beefsteak_tomato": "tomato",
    "bell_pepper": "bell pepper",
    "bottle__of__olive_oil": "bottle of olive oil",
    "bow": "bow",
    "caldron": "cauldron",
    "camera_tripod": "tripod",
    "carton__of__milk": "milk carton",
    "cigar_lighter": "lighter",
    "cornet": "trumpet",
    "deodorant__atomizer": "deodorant",
    "easter_egg": "Easter egg",
    "christmas_tree": "Christmas tree",
    "electric_kettle": "kettle",
    "electric_refrigerator": "fridge",
    "gym_shoe": "sneaker",
    "hallstand": "shoe rack",
    "head_cabbage": "cabbage",
    "hinged_jar": "jar",
    "hotdog": "hot dog",
    "insectifuge": "insect repellent",
    "leek": "leek",
    "parer": "paring knife",
    "popcorn__bag": "popcorn bag",
    "pot_plant": "potted plant",
    "radio_receiver": "radio",
    "sweet_corn": "sweet corn",
    "swivel_chair": "office chair",
    "teddy": "teddy bear",
    "tupperware": "food container",
    "vidalia_onion": "onion",
    "wood_fireplace": "fireplace",
}
WITHOUT_PLURAL = ("bacon", "bok choy", "broccoli", "firewood", "plywood", "sweet corn")
ALREADY_PLURAL = ("pliers",)
IRREGULAR = {"die": "dice"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def noun(synset: str) -> str:
    """`can__of__soda.n.01` -> "can of soda"."""
    name = synset.split(".")[0]
    prepared = name.split("__")
    *adjectives, last = prepared
    # `cooked__diced__chili` is chili that was treated; `can__of__soda` is a name of its own.
    if name in EVERYDAY or "of" in prepared:
        return EVERYDAY.get(name, name.replace("__", " ").replace("_", " "))
    words = [*adjectives, EVERYDAY.get(last, last.replace("_", " "))]
    return " ".join(words).replace("_", " ")


def plural(name: str) -> str:
    """Several of them: pizza -> pizzas, can of soda -> cans of soda."""
    head, of, rest = name.partition(" of ")
    if head in WITHOUT_PLURAL or head in ALREADY_PLURAL:
        return name
    before, _, last = head.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    elif last.endswith("tomato"):
        last += "es"
    else:
        last += "s"
    return f"{before} {last}".strip() + of + rest


def with_article(name: str) -> str:
    """One of them: a pizza, an apple."""
    if name in WITHOUT_PLURAL or name in ALREADY_PLURAL:
        return name
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
