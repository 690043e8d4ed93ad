"""The words the stories are filled with: characters, things, places. Plain tables, all written for this model."""

GIRLS = tuple(
    "Lily Mia Anna Sara Emma Zoe Ella Nora Ruby Lucy Maya Ivy Rosa Amy Alice Clara Eva Hana Jane Kate Lena Lola "
    "Molly Nina Penny Sophie Tess Yuki".split()
)
BOYS = tuple(
    "Tom Ben Max Leo Sam Jack Tim Noah Oscar Hugo Adam Alex Carlos Dan Eli Felix Henry Ian Jamal Kai Liam Milo "
    "Nico Paul Ravi Theo Will Zack".split()
)
SHE_ANIMALS = tuple("Poppy Daisy Hazel Clover Maple Willow Fern Pebble Dot Nutmeg Berry Luna".split())
HE_ANIMALS = tuple("Pip Bruno Rusty Button Toby Biscuit Moss Ollie Finn Barley Sunny Chip".split())

FIRST_SYLLABLES = tuple("Ka Mi To Ra Lu Ne Bo Zi Da Fe Su Vo Ja Pe Wi Al El Or Ma Sa Cha Ro Ke Ti".split())
LAST_SYLLABLES = tuple("la mo rin ko na xi ly bert da ro nny ra sha to bel mi ven dor lin".split())

KINDS = tuple(
    "fox rabbit bear mouse duck hedgehog squirrel turtle frog cat dog pig deer badger otter penguin goat horse "
    "robot dragon lion elephant monkey wizard knight pirate giant".split()
)
SMALL = ("little", "small", "young", "kind", "clever", "shy", "cheerful", "curious")

COLORS = ("red", "blue", "green", "yellow", "white", "orange", "purple", "pink", "new", "old", "big", "little")
TOYS = (
    "ball", "kite", "doll", "teddy bear", "toy car", "toy boat", "drum", "book", "hat", "scarf", "bucket", "whistle",
    "lantern", "umbrella", "backpack", "toy train",
)  # fmt: skip
LIGHT = ("kite", "hat", "scarf", "balloon", "paper plane", "umbrella")
KEYS = ("old key", "small key", "golden key", "rusty key", "silver key")
FAST = ("hare", "fox", "horse", "deer", "lion", "cat", "dog")
SLOW = ("turtle", "snail", "hedgehog", "duck", "penguin", "mouse")
GREEDY = ("dog", "fox", "cat", "bear", "wolf", "monkey", "lion")
FOODS = ("apple", "cookie", "pear", "pie", "muffin", "peach", "sandwich", "cake", "carrot", "bun")
FLOWERS = ("rose", "sunflower", "tulip", "lily", "bean plant", "apple tree", "pumpkin")
PARENTS = (("mom", "she"), ("dad", "he"), ("grandma", "she"), ("grandpa", "he"))
HOMES = (
    "in a small house by the sea", "in a little village", "near a big forest", "by a blue lake", "on a quiet farm",
    "on a green hill", "in a busy town", "by a river",
)  # fmt: skip

# Place, its preposition, and spots where something can lie hidden there.
PLACES = (
    ("park", "in", ("under a bench", "behind the slide", "in the sandbox", "next to the swings", "by the fountain")),
    ("garden", "in", ("under a bush", "behind the shed", "next to the gate", "in the tall grass", "by the well")),
    ("forest", "in", ("under a big tree", "behind a rock", "in the leaves", "inside a hollow log", "by the path")),
    ("beach", "at", ("behind a sand castle", "under a towel", "between two rocks", "in the sand", "by the boats")),
    ("farm", "at", ("in the hay", "behind the barn", "under a cart", "next to the hen house", "by the fence")),
    ("lake", "at", ("under a bridge", "behind the boats", "in the tall grass", "next to a rock", "by the water")),
    ("meadow", "in", ("under a tree", "behind a rock", "in the flowers", "next to the path", "by the stream")),
    ("market", "at", ("under a table", "behind a basket", "in a box", "next to the apples", "by the door")),
)

# What a character fears, how it looks up close, what to say about it.
FEARS = (
    ("the dark", "the stars came out, and they were beautiful", "The dark is only the day, asleep"),
    ("thunder", "the rain sang a soft song on the roof", "Thunder is only a big drum in the sky"),
    ("deep water", "the water was cool and it held {h.him} up", "The water will carry you if you are calm"),
    ("high places", "{h.he} could see the whole valley", "Look far away, and not down"),
    ("loud noises", "it was only the wind playing with a door", "A noise cannot hurt you"),
    ("strangers", "the new neighbor smiled and gave {h.him} a cookie", "A stranger may be a friend you have not met"),
)

# An animal in trouble, how one helps, where it was.
TROUBLES = (
    ("bird", "had a hurt wing", "wrapped the wing in a soft cloth"),
    ("kitten", "was stuck in a tree", "climbed up and brought it down"),
    ("bee", "had fallen into the water", "lifted it out with a leaf"),
    ("lamb", "was caught in a fence", "pulled the wire apart"),
    ("puppy", "was cold and wet", "dried it with a warm towel"),
    ("turtle", "was lying on its back", "turned it over very gently"),
    ("duckling", "could not find its mother", "led it back to the pond"),
    ("butterfly", "was stuck in a web", "set it free with a thin stick"),
)

# What can be made, from what, and the part that is missing.
CRAFTS = (
    ("cake", "bake", ("egg", "spoon", "lemon")),
    ("kite", "make", ("long string", "sheet of paper", "thin stick")),
    ("boat", "build", ("sail", "long rope", "wooden board")),
    ("pie", "bake", ("peach", "egg", "pear")),
    ("bird house", "build", ("nail", "hammer", "wooden board")),
    ("card", "make", ("sheet of paper", "blue pencil", "red ribbon")),
)

# What a hero would like to be able to do, and how it feels at last.
SKILLS = (
    ("ride a bike", "rode all the way down the road"),
    ("swim", "swam across the whole pond"),
    ("skate", "skated around the pond without a fall"),
    ("whistle", "whistled a merry tune"),
    ("sing", "sang so well that the birds stopped to listen"),
    ("dance", "danced until the stars came out"),
    ("paint", "painted a picture of the whole family"),
    ("climb", "climbed to the top of the old oak tree"),
)

# What breaks in the house.
FRAGILE = ("vase", "cup", "plate", "lamp", "clock", "bowl", "flower pot", "teapot")

# What lies in a chest.
TREASURES = (
    ("a gold coin", "bought bread for the whole village"),
    ("an old letter", "read it by the fire"),
    ("a music box", "danced to its soft song"),
    ("a bag of seeds", "planted them in a long row"),
    ("a silver bell", "rang it from the top of the hill"),
    ("a jar of honey", "ate it with warm bread"),
    ("a tiny crown", "took turns being king and queen"),
    ("a brass telescope", "looked at the moon together"),
)
