"""Names of the classes of COCO and COCO-Stuff, in the order of their category ids."""

VOID = "void"
THINGS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic_light", "fire_hydrant", "stop_sign", "parking_meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag"),
    *("tie", "suitcase", "frisbee", "skis", "snowboard", "sports_ball", "kite", "baseball_bat"),
    *("baseball_glove", "skateboard", "surfboard", "tennis_racket", "bottle", "wine_glass", "cup"),
    *("fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot"),
    *("hot_dog", "pizza", "donut", "cake", "chair", "couch", "potted_plant", "bed", "dining_table"),
    *("toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell_phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy_bear", "hair_drier"),
    "toothbrush",
)
"""The 80 things; they are the labels 1 to 80 of the lists of UniMatch, where 0 is everything else."""

STUFF = (
    *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard"),
    *("carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard"),
    *("curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other"),
    *("floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit"),
    *("furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light", "mat"),
    *("metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow"),
    *("plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river", "road"),
    *("rock", "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow"),
    *("solid-other", "stairs", "stone", "straw", "structural-other", "table", "tent", "textile-other"),
    *("towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel"),
    *("wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind"),
    *("window-other", "wood"),
)
"""The 91 classes of stuff, which follow the things in COCO-Stuff."""

UNUSED_VALUES = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Values of COCO-Stuff's masks (category id - 1) that no class has: things that were given up after 2014."""

STUFF_VALUES = tuple(value for value in range(182) if value not in UNUSED_VALUES)
"""Value of each of the 171 classes in COCO-Stuff's masks as downloaded."""
