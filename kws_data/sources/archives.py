"""The published Speech Commands archives, with their checksums, sizes and licences."""

from dataclasses import dataclass

from kws_data.errors import KwsError

BASE_URL = "https://storage.googleapis.com/download.tensorflow.org/data"  # the folder of the files

_LICENCE = "Creative Commons BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
_CITATION = (
    "Pete Warden. Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv:1804.03209, 2018. "
    "https://arxiv.org/abs/1804.03209"
)


@dataclass(frozen=True)
class Archive:
    """A published archive and its facts; None where they are not published."""

    name: str
    file_name: str
    md5: str | None = None  # if None, size and full extraction are checked instead
    bytes: int | None = None
    clips: int | None = None
    root: str = ""  # the folder inside the archive that holds the words' folders
    test_set: str | None = None  # the archive with this release's canonical test set
    licence: str = _LICENCE
    citation: str = _CITATION


_V001, _V002 = "speech_commands_v0.01.tar.gz", "speech_commands_v0.02.tar.gz"
_PUBLISHED = (
    Archive("v0.01", _V001, "3cd23799cb2bbdec517f1cc028f8d43c", 1_489_096_277, 64_727, test_set="test_set_v0.01"),
    Archive("v0.02", _V002, "6b74f3901214cb2c2934e98196829835", 2_428_923_189, 105_829, test_set="test_set_v0.02"),
    Archive("mini", "mini_speech_commands.zip", bytes=182_082_353, clips=8_000, root="mini_speech_commands"),
    Archive("test_set_v0.01", "speech_commands_test_set_v0.01.tar.gz"),
    Archive("test_set_v0.02", "speech_commands_test_set_v0.02.tar.gz", clips=4_890),
)
ARCHIVES = {archive.name: archive for archive in _PUBLISHED}


def named(name: str) -> Archive:
    """The archive of that name; otherwise a KwsError lists the known names."""
    if name not in ARCHIVES:
        raise KwsError(f"download: no data set {name!r}; there are {', '.join(ARCHIVES)}")
    return ARCHIVES[name]
