"""The words of the releases of Speech Commands and of the usual tasks (Warden, arXiv:1804.03209)."""

# The keywords of the 12-class task, in the order of the original example's `wanted_words`.
CORE_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")

V001_WORDS = (
    *CORE_WORDS,
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
)

V002_WORDS = (*V001_WORDS, "backward", "forward", "follow", "learn", "visual")

# TensorFlow's mini_speech_commands.
