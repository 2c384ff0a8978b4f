"""Which espeak-ng voice variants speak: the training voices, and the held-out voices that no model of the
project hears.

Fixed before anything was trained, by how a voice sounds, never by how well a recogniser does on it. Left
out of both lists are variants that are not speech-like:

- effects: whisper, whisperf, croak, Demonic, Storm, announcer, UniRobot, anikaRobot, robosoft to
  robosoft8;
- muffled beyond speech (the spectral centroid of a test sentence is under 400 Hz): anika, caleb, iven,
  steph, steph2,
  steph3 (a recogniser made 89% errors on steph in an earlier study, so that number is known to be hard);
- cartoon and buzz: zac, shelby, quincy, klatt, klatt2, Tweaky, AnxiousAndy;
- twins of a listed variant, and "Mr serious", whose name carries a space.

The variants are parameter sets of one formant synthesiser, so unseen voices are nearer to the training
voices than unseen people would be. A voice name is `language+variant`, for example `ko+f1`.
"""

_TRAINING_VARIANTS = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Henrique", "Hugo", "Jacky",
    "Lee", "Marco", "Mario", "Mike", "Nguyen", "Reed", "RicishayMax", "adam", "antonio", "benjamin",
    "boris", "david", "ed", "edward", "f1", "f3", "f4", "f5", "grandma", "grandpa", "gustave",
    "ian", "iven2", "john", "kaukovalta", "klatt3", "klatt4", "klatt6", "linda", "m1", "m2", "m4",
    "m5", "m6", "m7", "m8", "marcelo", "max", "michel", "miguel", "norbert", "paul", "pedro", "rob",
    "robert", "sandro", "travis",
)  # fmt: skip
# Varied on purpose: four rather high, four rather low, bright and dark, none with a twin among the others.
_UNSEEN_VARIANTS = ("f2", "aunty", "belinda", "m3", "Diogo", "Michael", "pablo", "victor")

# Korean voices of the built-in corpus.
TRAINING_VOICES: tuple[str, ...] = tuple(f"ko+{variant}" for variant in _TRAINING_VARIANTS)
UNSEEN_VOICES: tuple[str, ...] = tuple(f"ko+{variant}" for variant in _UNSEEN_VARIANTS)
# Variants of the pre-training, in each of its languages; it never uses the unseen ones either.
PRETRAINING_VARIANTS: tuple[str, ...] = _TRAINING_VARIANTS
