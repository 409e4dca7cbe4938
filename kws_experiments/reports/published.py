"""What the sources report of the models in `conf/model/`, to stand beside our own counts in `kws models`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A model's features and task in its source, and the figures there.

    Attributes:
        features: one of conf/features/.
        settings: overrides of its keys.
        task: one of conf/task/.
        parameters: as the source prints them; empty where it doesn't.
        counted: which of our counts that is: `parameters`, `trained` or `folded` (see `model_table.Row`).
        accuracy: on the test split unless said, and on which release.
    """

    features: str = "log_mel"
    task: str = "keywords12"
    parameters: str = ""
    counted: str = ""
    accuracy: str = ""
    settings: tuple[str, ...] = ()


_MATCHBOXNET = (
    "features.window_ms=25", "features.num_mel_bins=64", "features.num_coefficients=64", "features.upper_hz=8000",
)  # fmt: skip

PUBLISHED = {
    # TensorFlow's examples/speech_commands: counts of its own code; accuracies arXiv:1804.03209
    "conv": Published("mfcc", "keywords12", "926,860", "parameters", "85.4 % v0.01, 88.2 % v0.02"),
    "low_latency_conv": Published("mfcc", "keywords12", "949,862", "parameters"),
    "low_latency_svdf": Published("mfcc", "keywords12", "751,372", "parameters"),
    "single_fc": Published("mfcc", "keywords12", "47,052", "parameters"),
    "tiny_conv": Published("mfcc", "keywords12", "94,740", "parameters"),
    "tiny_embedding_conv": Published("mfcc"),
    # The tutorials
    "simple_audio": Published("stft", "mini8", "1,625,611", "parameters", "83 to 84 % mini, validation"),
    "cnn4": Published("log_spectrogram", "words30", "2,226,846", "parameters", "93.2 % v0.01, validation"),
    # Hello Edge, arXiv:1711.07128
    "ds_cnn_s": Published("mfcc_hello_edge", "keywords12", "22,604", "folded", "94.4 % v0.01"),
    "ds_cnn_m": Published("mfcc_hello_edge", accuracy="94.9 % v0.01"),
    "ds_cnn_l": Published("mfcc_hello_edge", accuracy="95.4 % v0.01"),
    # MLPerf Tiny, arXiv:2106.07597; its trained network, on the canonical test set
    "ds_cnn_mlperf": Published("mfcc_mlperf_tiny", accuracy="91.7 % v0.02"),
    # arXiv:1710.10361 (with 101 frames)
    "res8": Published("mfcc", "keywords12", "110 k", "trained", "94.1 % v0.01"),
    "res8_narrow": Published("mfcc", "keywords12", "19.9 k", "trained", "90.1 % v0.01"),
    "res15": Published("mfcc", "keywords12", "238 k", "trained", "95.8 % v0.01"),
    "res15_narrow": Published("mfcc", "keywords12", "42.6 k", "trained", "94.0 % v0.01"),
    "res26": Published("mfcc", "keywords12", "438 k", "trained", "95.2 % v0.01"),
    "res26_narrow": Published("mfcc", "keywords12", "78.4 k", "trained", "93.3 % v0.01"),
    # arXiv:1904.03814
    "tc_resnet8": Published("mfcc", "keywords12", "66 k", "parameters", "96.1 % v0.01"),
    "tc_resnet8_1_5": Published("mfcc", "keywords12", "145 k", "parameters", "96.2 % v0.01"),
    "tc_resnet14": Published("mfcc", "keywords12", "137 k", "parameters", "96.2 % v0.01"),
    "tc_resnet14_1_5": Published("mfcc", "keywords12", "305 k", "parameters", "96.6 % v0.01"),
    # arXiv:2106.04140
    "bc_resnet_1": Published("log_mel", "keywords12", "9,232", "trained", "96.6 % v0.01, 96.9 % v0.02"),
    "bc_resnet_1_5": Published("log_mel", "keywords12", "17,154", "trained", "97.2 % v0.01, 97.6 % v0.02"),
    "bc_resnet_2": Published("log_mel", "keywords12", "27,284", "trained", "97.3 % v0.01, 97.8 % v0.02"),
    "bc_resnet_3": Published("log_mel", "keywords12", "54,168", "trained", "97.6 % v0.01, 98.2 % v0.02"),
    "bc_resnet_6": Published("log_mel", "keywords12", "187,812", "trained", "97.9 % v0.01, 98.6 % v0.02"),
    "bc_resnet_8": Published("log_mel", "keywords12", "321,068", "trained", "98.0 % v0.01, 98.7 % v0.02"),
    # arXiv:2004.08531
    "matchboxnet_3x1x64": Published("mfcc", "words30", "77 k", "trained", "97.2 % v0.01", settings=_MATCHBOXNET),
    "matchboxnet_3x2x64": Published("mfcc", "words30", "93 k", "trained", "97.5 % v0.01", settings=_MATCHBOXNET),
    # arXiv:2005.06720
    "mhatt_rnn": Published(
        "mfcc", "keywords12", "743 k", "parameters", "97.2 % v0.01, 98.0 % v0.02",
        settings=(
            "features.window_ms=40", "features.hop_ms=20", "features.num_coefficients=20", "features.upper_hz=8000",
        ),
    ),
}  # fmt: skip
