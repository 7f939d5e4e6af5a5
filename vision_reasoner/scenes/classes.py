"""What scenes contain: object classes with the code points of their drawings, colors, company names and purposes.

Data only. A drawing is named by its Unicode code points, as the art packages name their files. A class may have
several drawings.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectClass:
    """One class of objects.

    Attributes:
        name: singular, the word used in requests and answers.
        plural: its plural.
        drawings: code points (lower-case hex, joined by "-") of the emoji that show it.
        paintable: whether it may be painted in a named color.
    """

    name: str
    plural: str
    drawings: tuple[str, ...]
    paintable: bool = False


# name, plural ("" adds an s), code points; a star marks paintable classes: those recognized by their outline
_TABLE = """
woman/women/1f9cd-200d-2640-fe0f 1f469
man/men/1f9cd-200d-2642-fe0f 1f468
dog//1f415 1f429 1f9ae
cat//1f408 1f408-200d-2b1b
horse//1f40e
cow//1f404 1f402
sheep/sheep/1f411 1f40f
pig//1f416
elephant//1f418
bear//1f43b 1f43b-200d-2744-fe0f
zebra//1f993
giraffe//1f992
lion//1f981
tiger//1f405
monkey//1f412
rabbit//1f407
panda//1f43c
frog//1f438
turtle//1f422
snake//1f40d
bird//1f426 1f54a-fe0f
chicken//1f414 1f413
duck//1f986
penguin//1f427
owl//1f989
butterfly/butterflies/1f98b *
bee//1f41d
spider//1f577-fe0f
snail//1f40c
fish/fish/1f41f 1f420 *
shark//1f988
whale//1f40b 1f433
dolphin//1f42c
octopus/octopuses/1f419
crab//1f980
apple//1f34e 1f34f
banana//1f34c
orange//1f34a
lemon//1f34b
pear//1f350
cherry/cherries/1f352
strawberry/strawberries/1f353
grapes/grapes/1f347
watermelon//1f349
pineapple//1f34d
tomato/tomatoes/1f345
carrot//1f955
broccoli/broccoli/1f966
mushroom//1f344
bread/bread/1f35e 1f956
cheese/cheese/1f9c0
egg//1f95a
sandwich/sandwiches/1f96a
hamburger//1f354
pizza//1f355
hot dog//1f32d
donut//1f369
cookie//1f36a
cake//1f382 1f370
ice cream/ice creams/1f366 1f368
cup//2615 1f375 *
bottle//1f37e 1f37c
wine glass/wine glasses/1f377
bowl//1f963 1f35a
fork//1f374
knife/knives/1f52a
spoon//1f944
vase//1f3fa
car//1f697 1f699 *
bus/buses/1f68c 1f68d *
truck//1f69a 1f69b
train//1f686 1f682
bicycle//1f6b2 *
motorcycle//1f3cd-fe0f 1f6f5
airplane//2708-fe0f 1f6e9-fe0f
helicopter//1f681
rocket//1f680
boat//26f5
traffic light//1f6a6 1f6a5
stop sign//1f6d1
chair//1fa91 *
couch/couches/1f6cb-fe0f
bed//1f6cf-fe0f
potted plant//1fab4
toilet//1f6bd
ladder//1fa9c
door//1f6aa
tv//1f4fa
laptop//1f4bb
keyboard//2328-fe0f
computer mouse/computer mice/1f5b1-fe0f
cell phone//1f4f1
camera//1f4f7 1f4f8
clock//23f0 1f570-fe0f
book//1f4d5 1f4d7 1f4d8
pencil//270f-fe0f
scissors/scissors/2702-fe0f
key//1f511 *
hammer//1f528
flashlight//1f526
candle//1f56f-fe0f
light bulb//1f4a1
umbrella//2614 2602-fe0f *
backpack//1f392
handbag//1f45c 1f45b
suitcase//1f9f3
tie//1f454
shirt//1f455 *
dress/dresses/1f457 *
shoe//1f45f 1f45e
sock//1f9e6
hat//1f452 1f3a9 *
crown//1f451
glasses/glasses/1f453 1f576-fe0f
toothbrush/toothbrushes/1faa5
broom//1f9f9
bucket//1faa3
basket//1f9fa
gift//1f381 *
balloon//1f388 *
teddy bear//1f9f8
kite//1fa81
frisbee//1f94f
ball//26bd 1f3c0 1f3d0
skateboard//1f6f9
skis/skis/1f3bf
guitar//1f3b8 *
violin//1f3bb
drum//1f941
bell//1f514 *
tree//1f333 1f332
cactus/cacti/1f335
flower//1f33b 1f337 1f339
house//1f3e0 1f3e1
tent//26fa
fire extinguisher//1f9ef
"""


def _parse(line: str) -> ObjectClass:
    name, plural, drawings = line.split("/")
    codes = drawings.split()
    paintable = codes[-1] == "*"
    return ObjectClass(name, plural or name + "s", tuple(c for c in codes if c != "*"), paintable)


CLASSES: tuple[ObjectClass, ...] = (
    *(_parse(line) for line in _TABLE.strip().splitlines()),
    ObjectClass("sign", "signs", ()),  # drawn by the scene generator, with a company's name on it
)
CLASS_INDEX = {c.name: i for i, c in enumerate(CLASSES)}
SIGN = CLASS_INDEX["sign"]

# The colors that objects are painted in: hue in degrees, saturation, value.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0, 0.85, 0.85),
    "orange": (28, 0.95, 0.98),
    "yellow": (52, 0.85, 0.98),
    "green": (125, 0.75, 0.65),
    "blue": (218, 0.8, 0.85),
    "purple": (275, 0.65, 0.7),
    "pink": (325, 0.45, 0.98),
    "white": (0, 0.0, 1.0),
    "black": (0, 0.0, 0.22),
}
COLOR_INDEX = {name: i for i, name in enumerate(COLORS)}

COMPANIES = (
    "ACME NOVA ORBIT LUMEN TERRA VERTEX ZENITH ATLAS KORA DELTA FJORD GLOBEX HELIX IONIC JUNO KITE LOTUS MERIDIAN "
    "NIMBUS OMEGA PIXEL QUARTZ RIVERA SOLARIS TITAN UMBRA VIVID WAVE XENON YONDER ZEPHYR BRIO CASCADE "
    "DYNAMO EMBER FALCON"
).split()

# Purposes: the sentence in the thinking, the classes that serve it, and wordings of the request.
# The last wording is held out from training.
PURPOSES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "can be climbed to stand higher",
        ("ladder",),
        (
            "what can make the woman stand higher",
            "something to climb on to stand higher",
            "what helps someone reach a high shelf",
            "what would you climb to reach the roof",
            "the thing that lets someone stand higher",
        ),
    ),
    (
        "keeps the rain off",
        ("umbrella",),
        (
            "something for the rain",
            "what keeps you dry in the rain",
            "what would you take on a rainy day",
            "the thing that protects from rain",
        ),
    ),
    (
        "can fly in the air",
        ("bird", "butterfly", "bee", "owl"),
        (
            "an animal that can fly",
            "the animals that fly",
            "which animals have wings and fly",
            "any animal able to fly",
        ),
    ),
    (
        "lives in the water",
        ("fish", "shark", "whale", "dolphin", "octopus", "crab"),
        (
            "an animal that lives in the water",
            "the animals that live in the sea",
            "which animals swim in the sea",
            "any animal living in the water",
        ),
    ),
    (
        "tells the time",
        ("clock",),
        (
            "what tells the time",
            "something to wake up on time",
            "what shows what time it is",
            "the thing that tells the time",
        ),
    ),
    (
        "is sweet and eaten as dessert",
        ("donut", "cake", "cookie", "ice cream"),
        ("something sweet for dessert", "a dessert", "which sweets can be eaten as dessert", "the sweet dessert"),
    ),
    (
        "is fruit",
        ("apple", "banana", "orange", "lemon", "pear", "cherry", "strawberry", "grapes", "watermelon", "pineapple"),
        ("the fruit", "all the fruit", "which fruit can be eaten", "any kind of fruit"),
    ),
    (
        "makes music",
        ("guitar", "violin", "drum"),
        (
            "something to make music with",
            "the musical instruments",
            "what can a musician play",
            "any instrument for music",
        ),
    ),
    (
        "cuts paper",
        ("scissors",),
        (
            "what can cut paper",
            "something to cut paper with",
            "the tool for cutting paper",
            "what would you cut paper with",
        ),
    ),
    (
        "drives a nail into the wall",
        ("hammer",),
        (
            "what drives a nail into the wall",
            "a tool for nails",
            "something to hit a nail with",
            "what would you hit a nail with",
        ),
    ),
    (
        "opens a lock",
        ("key",),
        (
            "what opens a lock",
            "something to unlock the lock",
            "what do I need for a lock",
            "the thing that opens a lock",
        ),
    ),
    (
        "gives light in the dark",
        ("flashlight", "candle", "light bulb"),
        (
            "something that gives light",
            "what helps to see in the dark",
            "a source of light for a dark room",
            "what gives light in the dark",
        ),
    ),
    (
        "takes photos",
        ("camera",),
        (
            "what takes photos",
            "something to take photos with",
            "the device for photos",
            "what would you take photos with",
        ),
    ),
    (
        "can be read",
        ("book",),
        ("something to read", "what can be read", "what would you read in the evening", "the thing one can read"),
    ),
    (
        "is for sitting or lying down",
        ("chair", "couch", "bed"),
        (
            "something to sit or lie down on",
            "the furniture to rest on",
            "where can one sit down or rest",
            "what could one rest on",
        ),
    ),
    (
        "is worn on the head",
        ("hat", "crown"),
        (
            "something to wear on the head",
            "what goes on the head",
            "the thing worn on the head",
            "what would you put on your head",
        ),
    ),
    (
        "is worn on the feet",
        ("shoe", "sock"),
        (
            "something to wear on the feet",
            "what goes on the feet",
            "what keeps the feet warm",
            "what would you put on your feet",
        ),
    ),
    (
        "puts out a fire",
        ("fire extinguisher",),
        (
            "what puts out a fire",
            "something to fight a fire with",
            "what do we need when there is a fire",
            "the thing against fire",
        ),
    ),
    (
        "cleans the floor",
        ("broom", "bucket"),
        (
            "something to clean the floor with",
            "what helps to clean the floor",
            "the thing for cleaning the floor",
            "what cleans a dirty floor",
        ),
    ),
    (
        "cleans the teeth",
        ("toothbrush",),
        (
            "what cleans the teeth",
            "something to brush the teeth with",
            "the thing for clean teeth",
            "what would you use on your teeth",
        ),
    ),
    (
        "carries things on a trip",
        ("suitcase", "backpack"),
        (
            "something to pack for a trip",
            "what carries clothes on a trip",
            "the luggage for a trip",
            "what would you pack for a trip",
        ),
    ),
    (
        "helps to see clearly",
        ("glasses",),
        (
            "what helps someone with bad eyes",
            "something for bad eyes",
            "what helps the eyes to see clearly",
            "the thing for weak eyes",
        ),
    ),
    (
        "travels on rails",
        ("train",),
        ("what travels on rails", "a vehicle on rails", "something that runs on rails", "the vehicle that needs rails"),
    ),
    (
        "travels through the sky",
        ("airplane", "helicopter", "rocket"),
        (
            "a vehicle that can fly",
            "what vehicle travels in the sky",
            "a machine that flies",
            "any vehicle for the sky",
        ),
    ),
    (
        "has two wheels",
        ("bicycle", "motorcycle"),
        (
            "a vehicle with two wheels",
            "what can be ridden on two wheels",
            "something with two wheels",
            "any vehicle on two wheels",
        ),
    ),
    (
        "holds a drink",
        ("cup", "wine glass", "bottle"),
        ("something to drink from", "what holds a drink", "what would you drink from", "the thing to drink from"),
    ),
)
